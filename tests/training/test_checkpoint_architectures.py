"""Checkpoints of every architecture."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import DataError
from training.images.preprocessing import Preprocessing
from training.models.config import ARCHITECTURES, ModelConfig, build_model, model_class, variant
from training.schema import Attribute, Schema
from training.validated import validated

SCHEMA = Schema((Attribute("pattern", ("floral", "striped")), Attribute("fit", ("slim", "loose"))))


def _save(folder: Path, name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    config = variant(name, ModelConfig("resnet18", "layer1", 4))
    config = validated(ModelConfig, config.to_json() | {"dim": 16}, "test")
    model = build_model(SCHEMA, config, categories=2).eval()
    save_checkpoint(folder, model, Preprocessing(size=32), ("dress", "coat"), {})
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    model = _save(tmp_path, name)
    loaded = load_checkpoint(tmp_path).model
    assert type(loaded) is model_class(name)
    assert loaded.config == model.config
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        for condition in loaded.type_conditions.split(1):
            # Rounding depends on how weights lie in memory.
            torch.testing.assert_close(loaded(images, condition), model(images, condition))
        maps = loaded.features(images)
        torch.testing.assert_close(loaded.predict(maps), model.predict(maps))
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == name
    card = (tmp_path / "README.md").read_text()
    assert f"# {loaded.title}\n" in card
    assert loaded.paper in card
    assert ("cannot be indexed" in card) == (name != "m2fashion")


def test_without_readout_and_lower_stages_a_checkpoint_gives_the_plain_numbers(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    config = ModelConfig("resnet18", "layer1", 4, 16, readout="none", lower_stages=False)
    model = build_model(SCHEMA, config).eval()
    save_checkpoint(tmp_path, model, Preprocessing(size=32), (), {})
    loaded = load_checkpoint(tmp_path).model
    assert loaded.config == config
    images = torch.randn(2, 3, 32, 32)
    condition = torch.from_numpy(SCHEMA.condition(["floral"], ["slim"])).float().reshape(1, 1, -1)
    with torch.inference_mode():  # the model, part by part
        maps = model.reduce(functional.adaptive_avg_pool2d(model.backbone(images), 4))
        keys = torch.tanh(model.spatial.key(maps))
        attended = model.spatial(maps, keys, model.spatial_embedding(condition))
        z = model.channel(attended, model.channel_embedding(condition))[:, 0]
        assert torch.equal(loaded(images, condition[0]), functional.normalize(z, dim=-1))
        types = model.attend_raw(maps, model.type_conditions.unsqueeze(0))
        logits = [model.attribute_head(types[:, t])[:, 2 * t : 2 * t + 2] for t in range(2)]
        chances = torch.cat([part.softmax(-1) for part in logits], 1)
        torch.testing.assert_close(loaded.predict(loaded.features(images)), chances)


@pytest.mark.parametrize(
    ("top", "inner", "message"),
    [
        (
            "transformer",
            "transformer",
            "is none of m2fashion, triplet, csn, asen, asenet-v2",
        ),
        ("transformer", "asen", "contradicts itself"),
        (["asen"], "asen", r"architecture = \['asen'\]: Expected `str`"),
        ("asen", "csn", "'asen', but 'csn'"),
        ("m2fashion", "csn", "contradicts itself"),
        ("csn", "csn", "does not fit its config"),
    ],
)
def test_another_architecture_than_the_weights_are_of_is_refused(
    tmp_path: Path, top: object, inner: str, message: str
) -> None:
    _save(tmp_path, "asen")
    config = json.loads((tmp_path / "config.json").read_text())
    config["architecture"], config["model"]["architecture"] = top, inner
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        _ = load_checkpoint(tmp_path).model
