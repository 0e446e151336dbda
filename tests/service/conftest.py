"""What the tests of the service share: one small shop and one server a session."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from small_index import Shop, make_shop

from benchmarks.served import Server, serve

pytest.importorskip("fastapi", reason="needs [serve]")


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Not to be changed."""
    return make_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def server(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over the shop that nobody may change, of bodies of at most 1 MB."""
    with serve(shop.index, tmp_path_factory.mktemp("server"), "--max-upload", 1) as found:
        yield found


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as found:
        yield found
