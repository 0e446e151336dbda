"""What the tests of databases share: a PostgreSQL server a session, and what holds an index."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from holder import Holder
from small_index import Shop

from benchmarks.private_server import PrivateServer, private_server
from benchmarks.speed.drawn_gallery import export_gallery, images_of
from indexer.progress import Silent
from indexer.store.store import open_store
from retrieval.query_vector import draw_requests
from training.errors import ResourceError

DRAWN = 4600  # more than are always read


@pytest.fixture(scope="session")
def server() -> Iterator[PrivateServer]:
    try:
        with private_server() as found:
            yield found
    except ResourceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", params=["local", "postgres", "milvus"])
def holder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Holder:
    if request.param == "postgres":
        own: PrivateServer = request.getfixturevalue("server")
        return Holder("postgres", lambda: f"{own.url}&table=t{uuid4().hex[:12]}")
    if request.param == "milvus":
        for driver in ("pymilvus", "milvus_lite"):
            if importlib.util.find_spec(driver) is None:
                pytest.skip(f"needs {driver}")
        folder = tmp_path_factory.mktemp("milvus")
        return Holder("milvus", lambda: f"milvus://{folder}/a.db/t{uuid4().hex[:12]}")
    return Holder("local", lambda: "")


@pytest.fixture(scope="session")
def drawn(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of `DRAWN` images drawn from those of the shop, no two alike."""
    folder, real = tmp_path_factory.mktemp("drawn"), open_store(shop.index)
    how = images_of(real), DRAWN, folder, real.model_folder, draw_requests, Silent()
    export_gallery(real.manifest, *how)
    return folder
