"""PostgreSQL in trouble: exports that are killed, readers meanwhile, a server that restarts."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from small_index import Shop, run

from benchmarks.private_server import PrivateServer
from benchmarks.served import serve
from indexer.build.edit import add_images, remove_images
from indexer.hold.export import export_index
from indexer.hold.open import open_held
from indexer.progress import Silent
from indexer.store.gallery import Known, write_gallery
from indexer.store.manifest import commit_manifest
from indexer.store.store import open_store
from retrieval.engine import Engine
from retrieval.query_vector import draw_requests
from retrieval.request import Request
from training.errors import DataError, LockedError, ResourceError, UsageError

KILLS = 20


@pytest.fixture
def url(server: PrivateServer) -> str:
    return f"{server.url}&table=t{uuid4().hex[:12]}"


@pytest.fixture
def index(shop: Shop, tmp_path: Path) -> Path:
    shutil.copytree(shop.index, tmp_path / "index")
    return tmp_path / "index"


def export(index: Path, url: str) -> tuple[int, int]:
    report = export_index(index, url, draw_requests, Silent())
    return report.written, report.removed


def held_rows(url: str) -> list[tuple[object, ...]]:
    """All that is held, by path; what several tables hold, of one version."""
    held = open_held(url)
    rows = held.rows(None)
    found = held.records(rows)
    assert len(held) == len(rows) == len(set(rows.tolist()))
    of_each = found.paths, found.digests, found.descriptors, found.labels, found.items
    return sorted(
        (path, digest.tobytes(), code.tobytes(), states.tobytes(), int(item), str(payload))
        for path, digest, code, states, item, payload in zip(*of_each, found.payload, strict=True)
    )


def index_rows(index: Path) -> list[tuple[object, ...]]:
    return held_rows(str(index)) if index.is_dir() else []


def test_exports_that_are_killed(url: str, index: Path, shop: Shop) -> None:
    """Readers see the version before or the new one, and the next export ends it."""
    export(index, url)
    whole, names = index_rows(index), list(open_store(index).paths)
    draw, killed = random.Random(0), 0
    words = [sys.executable, "-m", "retrieval.cli", "export", str(index), "--to", url]
    started = time.monotonic()
    subprocess.run([*words[:-1], f"{url}_other"], check=True, capture_output=True)
    took = time.monotonic() - started
    for kill in range(KILLS):
        before = held_rows(url)
        if kill % 2:  # a few rows, else all
            remove_images(index, [draw.choice(list(open_store(index).paths))])
        else:
            there = set(open_store(index).paths)
            add_images(index, [name for name in names if name not in there], None)
            half = sorted(names)[kill % 4 :: 2]
            remove_images(index, half) if kill % 4 == 0 else None
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.4 * took, took))
        killed += process.poll() is None
        process.kill()
        process.wait()
        assert held_rows(url) in (before, index_rows(index))
        export(index, url)
        assert held_rows(url) == index_rows(index)
        assert export(index, url) == (0, 0)
    assert killed >= KILLS // 4
    assert whole


def test_readers_see_one_version(url: str, index: Path, shop: Shop) -> None:
    """While exports go on, each answer is that of one of the versions."""
    folders = [index, index.parent / "other"]
    shutil.copytree(index, folders[1])
    names = list(open_store(index).paths)
    remove_images(folders[1], [names[3], names[20]])
    request = Request(shop.catalogue / "images/004.png", ["disc", "gold"], where={"price": ">5"})

    def told(engine: Engine) -> list[object]:
        result = engine.query(request)
        hits = [(hit.listed, hit.score, hit.payload, hit.known) for hit in result]
        return [result.gallery, result.searched, hits]

    right = [told(Engine.open(folder, "cpu")) for folder in folders]
    assert right[0] != right[1]
    export(index, url)
    engine, failures, answers, over = Engine.open(url, "cpu"), [], [], threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(told(engine))
            except ResourceError as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(8):
        export(folders[(turn + 1) % 2], url)
        answered = len(answers) + len(failures)
        while len(answers) + len(failures) < answered + len(threads):
            time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    assert all(answer in right for answer in answers)
    assert all(own in answers for own in right)
    assert not failures


def test_a_server_that_restarts(
    server: PrivateServer, url: str, index: Path, shop: Shop, tmp_path: Path, capsys
) -> None:
    """Clear errors while it is gone; then everything goes on by itself."""
    export(index, url)
    engine = Engine.open(url, "cpu")
    picture = shop.catalogue / "images/004.png"
    request = Request(picture, ["disc"], where={"price": "<50"})
    right = engine.query(request).to_json()
    with serve(url, tmp_path / "server") as served, served.client() as client:  # type: ignore[arg-type]

        def ask() -> httpx.Response:
            form = {"present": "disc", "where": "price<50"}
            return client.post("/v1/query", data=form, files={"upload": picture.read_bytes()})

        found = ask()
        assert [hit["listed"] for hit in found.json()["hits"]] == [
            hit["listed"] for hit in right["hits"]
        ]
        assert client.get(found.json()["hits"][0]["url"]).status_code == 200
        server.stop()
        try:
            with pytest.raises(ResourceError, match="does not answer"):
                engine.query(request)
            down = ask()
            assert down.status_code == 503
            assert down.headers["content-type"] == "application/problem+json"
            assert "does not answer" in down.json()["detail"]
            code, _, said = run(capsys, "query", picture, "--index", url)
            assert code == 6
            assert "does not answer" in said
        finally:
            server.start()
        assert engine.query(request).to_json() == right
        assert [hit["listed"] for hit in ask().json()["hits"]] == [
            hit["listed"] for hit in right["hits"]
        ]

        remove_images(index, [right["hits"][0]["listed"]])
        export(index, url)
        after = [hit["listed"] for hit in ask().json()["hits"]]
        assert after[0] == right["hits"][1]["listed"]


def test_another_model_takes_the_place_of_all(
    url: str, index: Path, shop: Shop, tmp_path: Path
) -> None:
    export(index, url)
    other, held, store = tmp_path / "other", open_held(url), open_store(index)
    shutil.copytree(index, other)
    identity = replace(store.manifest.identity, model="0" * 64)
    commit_manifest(other, replace(store.manifest, identity=identity))
    engine = Engine.open(url, "cpu")
    written, removed = export(other, url)
    assert (written, removed) == (len(store), len(store))
    assert engine.refresh()
    assert engine.held.model == "0" * 64 != held.model


def test_two_exports_at_once(server: PrivateServer, url: str, index: Path, monkeypatch) -> None:
    import psycopg

    from indexer.hold import postgres_export

    monkeypatch.setattr(postgres_export, "SECONDS", 1)
    table = url.rpartition("=")[2]
    with psycopg.connect(server.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"retrieve {table}"])
        with pytest.raises(LockedError, match="another export"):
            export(index, url)
    assert export(index, url)[0] == len(open_store(index))


def test_what_is_refused(server: PrivateServer, url: str, index: Path, capsys, tmp_path) -> None:
    for words in (["add", url, "a.png"], ["remove", url, "a.png"], ["verify", url]):
        code, _, said = run(capsys, *words)
        assert code == 2
        assert "export it again" in said
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    code, _, said = run(capsys, "serve", url, "--token-file", token)
    assert code == 2
    assert "export it again" in said
    with pytest.raises(DataError, match=r"no index in .*retrieve export"):
        Engine.open(url)
    with pytest.raises(UsageError, match="a table of the name"):
        Engine.open(f"{server.url}&table=Two; drop")
    with pytest.raises(UsageError, match="name a folder, or postgresql"):
        Engine.open("redis://here")
    with pytest.raises(UsageError, match=r"ends in \.parquet"):
        export(index, "out.csv")
    with pytest.raises(ResourceError, match="does not answer") as error:
        Engine.open("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(error.value)


def test_everything_of_a_row_is_noticed(url: str, index: Path) -> None:
    """A label that changes is written, and nothing else."""
    export(index, url)
    store = open_store(index)
    known = Known.again(store.gallery)
    labels = known.labels.copy()
    labels[7] = -labels[7]
    own = dict(known.payload)
    own["price"] = [*own["price"][:9], "77", *own["price"][10:]]
    entry = write_gallery(
        index, store.paths, np.arange(len(store)), replace(known, labels=labels, payload=own)
    )
    commit_manifest(index, replace(store.manifest, gallery=entry))
    assert export(index, url) == (2, 0)
    assert held_rows(url) == index_rows(index)
    assert open_held(url).rows(None).tolist() == list(range(len(store)))
