"""Milvus: an export that ends early leaves the version before, and the next one nothing over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_index import Shop

from indexer.build.edit import remove_images
from indexer.hold.export import export_index
from indexer.hold.open import open_held
from indexer.progress import Silent
from indexer.store.store import open_store
from retrieval.query_vector import draw_requests
from training.errors import DataError, UsageError

pymilvus = pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("create_collection", 0),
        ("create_collection", 1),
        ("insert", 0),
        ("insert", -1),
        ("flush", 0),
        ("alter_alias", 0),
        ("drop_collection", 0),
        ("drop_collection", 1),
    ],
)
def test_an_export_that_ends_early(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    index, url = tmp_path / "index", f"milvus://{tmp_path}/a.db/shop"
    shutil.copytree(shop.index, index)

    def export() -> int:
        return export_index(index, url, draw_requests, Silent()).written

    export()
    before = open_held(url)
    remove_images(index, [open_store(index).paths[4]])
    real, calls = getattr(pymilvus.MilvusClient, method), []

    def counted(*words, **others):
        calls.append(method)
        return real(*words, **others)

    if call < 0:  # the last one: it is known after a whole export
        with monkeypatch.context() as patched:
            patched.setattr(pymilvus.MilvusClient, method, counted)
            export_index(index, f"milvus://{tmp_path}/b.db/shop", draw_requests, Silent())
        call = len(calls) - 1
        calls.clear()

    def killed(*words, **others):
        if len(calls) == call:
            raise Killed
        return counted(*words, **others)

    with monkeypatch.context() as patched:
        patched.setattr(pymilvus.MilvusClient, method, killed)
        with pytest.raises(Killed):
            export()
    turned = method == "drop_collection"
    assert len(open_held(url)) == len(before) - turned
    assert export() == (0 if turned else len(before) - 1)
    held = open_held(url)
    assert sorted(held.records(held.rows(None)).paths) == sorted(open_store(index).paths)
    client = pymilvus.MilvusClient(f"{tmp_path}/a.db")
    kept = {f"shop_{held.content}", f"shop_{held.content}_files"}
    assert set(client.list_collections()) == kept


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no index in"):
        open_held(f"milvus://{tmp_path}/a.db/nothing")
    with pytest.raises(UsageError, match="names no collection"):
        open_held("milvus://host:19530/a b")
