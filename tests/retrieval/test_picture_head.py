"""One picture's Z in numpy against the model's own layers, for every variant and condition."""

import numpy as np
import pytest
import torch
from head_variants import CONDITIONS, OURS, variant_model

from retrieval.picture import Picture, embed_folded, pictures_of
from retrieval.picture_head import PictureHead
from training.models.m2fashion import M2Fashion


def pictures(model: M2Fashion, layout: torch.memory_format) -> list[Picture]:
    """Of any maps, of empty ones and of maps with an empty cell."""
    maps = 2 * torch.randn(4, model.dim, 3, 3, dtype=next(model.parameters()).dtype)
    maps[2] = 0
    maps[3, :, 1, 1] = 0
    maps = maps.to(memory_format=layout)
    return pictures_of(model, maps, model.keys(maps))


# d = 5 < K: the axes of different attributes are not orthogonal; odd: a feature is padded.
@pytest.mark.parametrize(
    ("dim", "dtype", "bound"), [(16, torch.float32, 1e-5), (5, torch.float64, 1e-12)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", OURS)
def test_it_embeds_as_the_model_does(
    name: str, layout: torch.memory_format, dim: int, dtype: torch.dtype, bound: float
) -> None:
    model = variant_model(name, dim, dtype)
    found = pictures(model, layout)
    for states in CONDITIONS.values():
        condition = torch.from_numpy(states).to(dtype)
        folded = model.fold(condition)
        head = PictureHead(folded)
        for picture in found:
            expected = model.attend(picture.maps, condition[None], picture.keys)[0].numpy()
            z = head(picture)
            assert z.dtype == expected.dtype
            np.testing.assert_allclose(z, expected, atol=bound, rtol=0)
            on_gpu = embed_folded(folded, picture)  # what does the same there
            np.testing.assert_allclose(on_gpu, expected, atol=max(bound, 1e-6), rtol=0)


def test_a_gate_that_is_shut_is_no_overflow() -> None:
    model = variant_model("m2fashion", 16, torch.float32)
    assert model.channel is not None
    model.channel.excite.bias.fill_(-200)  # exp(200) is beyond float32
    (picture, *_) = pictures(model, torch.channels_last)
    states = CONDITIONS["values"]
    with np.errstate(all="raise", under="ignore"):
        z = PictureHead(model.fold(torch.from_numpy(states).float()))(picture)
    np.testing.assert_allclose(z, picture.embed(model, [states])[0], atol=1e-5)
