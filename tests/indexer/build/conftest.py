"""A small gallery of as many pictures as a module's `COUNT` says, and a model for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_gallery import TinyCheckpoint, gallery, tiny_checkpoint, write_images

from training.datasets.dataset import Dataset


@pytest.fixture
def dataset(tmp_path: Path, request: pytest.FixtureRequest) -> Dataset:
    count: int = request.module.COUNT
    return gallery(tmp_path / "data", write_images(tmp_path / "data", count))


@pytest.fixture
def checkpoint(tmp_path: Path) -> TinyCheckpoint:
    return tiny_checkpoint(tmp_path / "run")
