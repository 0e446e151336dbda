"""What the tests of the service share: one small shop and one server a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from served import Server, serve
from small_index import Shop, make_shop

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
