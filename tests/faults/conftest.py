"""What the tests of faults share: a gallery with an index that has files of every kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from flips import make_target
from forked import one_thread
from small_gallery import SmallGallery


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> SmallGallery:
    """Not to be changed for good."""
    one_thread()
    return make_target(tmp_path_factory.mktemp("target"))


@pytest.fixture
def own(target: SmallGallery, tmp_path: Path) -> SmallGallery:
    """A copy to damage; its index is `folder / "index"`."""
    shutil.copytree(target.folder, tmp_path / "own")
    return SmallGallery(tmp_path / "own")
