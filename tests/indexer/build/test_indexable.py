"""An index is built of M2Fashion; the models it is compared with are refused, and told why."""

from pathlib import Path

import numpy as np
import pytest
from tiny_gallery import SCHEMA, gallery, write_images

from indexer.build.build import build_index
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import UsageError
from training.images.preprocessing import Preprocessing
from training.models.config import ARCHITECTURES, ModelConfig, build_model, variant

SMALL = ModelConfig("small", "layer1", 2, 16)
RIVALS = [name for name in ARCHITECTURES if name != "m2fashion"]


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_is_not_indexed(name: str, tmp_path: Path) -> None:
    model = build_model(SCHEMA, variant(name, SMALL))
    save_checkpoint(tmp_path / "run", model, Preprocessing(size=16), (), {})
    loaded = load_checkpoint(tmp_path / "run")
    dataset = gallery(tmp_path, write_images(tmp_path, 2))
    expected = rf"{name}.*`retrieve evaluate` measures it, but only m2fashion can be indexed"
    with pytest.raises(UsageError, match=expected):
        build_index(dataset, np.arange(2), loaded, tmp_path / "index")
    assert not (tmp_path / "index").exists()
