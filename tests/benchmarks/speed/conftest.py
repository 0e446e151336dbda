"""An index to extend, made once a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.build import BuildOptions, build_index
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.models.config import ModelConfig
from training.models.registry import build_model
from training.preprocessing import Preprocessing
from training.wardrobe.write_catalogue import write_catalogue

IMAGES = 45


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 45 rendered garments and a broken file, in shards of 20, of a model that was
    never trained."""
    root = tmp_path_factory.mktemp("garments")
    write_catalogue(root / "garments", IMAGES, size=32)
    lines = (root / "garments/labels.csv").read_text().splitlines()
    (root / "garments/images/broken.jpg").write_bytes(b"no picture")
    lines.insert(3, ",".join(["images/broken.jpg", *lines[2].split(",")[1:]]))
    (root / "garments/labels.csv").write_text("\n".join(lines) + "\n")
    dataset = load_dataset(str(root / "garments"))
    torch.manual_seed(0)
    config = ModelConfig("small", "layer2", grid=3, dim=16, lower_stages=False)
    model = build_model(dataset.schema, config, 0).eval()
    save_checkpoint(root / "run", model, Preprocessing(size=32), (), {})
    build_index(
        dataset,
        np.arange(len(dataset)),
        load_checkpoint(root / "run"),
        root / "index",
        options=BuildOptions(workers=0, shard_rows=20),
    )
    return root / "index"
