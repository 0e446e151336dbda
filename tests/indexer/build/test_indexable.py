"""An index is built of M2Fashion; the models it is compared with are refused, and told why."""

from pathlib import Path

import numpy as np
import pytest
from tiny_gallery import SCHEMA, TinyEmbedder, gallery, write_images

from indexer.build.build import build_index
from indexer.encode.encode import check_indexable
from indexer.encode.onnx import export_onnx
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import UsageError
from training.images.preprocessing import Preprocessing
from training.models.config import ARCHITECTURES, ModelConfig, build_model, variant

SMALL = ModelConfig("small", "layer1", 2, 16)
RIVALS = [name for name in ARCHITECTURES if name != "m2fashion"]


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_is_neither_indexed_nor_exported(name: str, tmp_path: Path) -> None:
    model = build_model(SCHEMA, variant(name, SMALL))
    save_checkpoint(tmp_path / "run", model, Preprocessing(size=16), (), {})
    loaded = load_checkpoint(tmp_path / "run")
    dataset = gallery(tmp_path, write_images(tmp_path, 2))
    expected = rf"{name}.*`retrieve evaluate` measures it, but only m2fashion can be indexed"
    with pytest.raises(UsageError, match=expected):
        build_index(dataset, np.arange(2), loaded, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    with pytest.raises(UsageError, match=expected):
        export_onnx(loaded.model, 16)
    assert not (tmp_path / "model.onnx").exists()


def test_m2fashion_and_embedders_from_elsewhere_pass() -> None:
    check_indexable(build_model(SCHEMA, SMALL))
    check_indexable(TinyEmbedder())
