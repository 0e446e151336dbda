"""New versions of the index under traffic, several workers, edits with a token, and the end."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from PIL import Image
from small_index import Shop, run

from benchmarks.served import serve
from indexer.build.edit import add_images, remove_images
from indexer.store.manifest import commit_manifest, read_manifest

TOKEN = "only-for-those-who-may"


@pytest.fixture
def own(shop: Shop, tmp_path: Path) -> Shop:
    """A copy that may be changed; its pictures are looked for in the copy, too."""
    shutil.copytree(shop.root, tmp_path / "own", symlinks=True)
    copy = Shop(tmp_path / "own")
    manifest = read_manifest(copy.index / "manifest.json")
    assert manifest is not None
    commit_manifest(copy.index, replace(manifest, root=str(copy.catalogue)))
    return copy


def until(true: Callable[[], object]) -> None:
    late = time.monotonic() + 20
    while not true():
        assert time.monotonic() < late
        time.sleep(0.05)


def wait_for(client: httpx.Client, images: int) -> None:
    until(lambda: client.get("/readyz").json()["images"] == images)


def test_versions_change_under_traffic(own: Shop, tmp_path: Path) -> None:
    """No request fails, whatever version it meets; what a version held is given back."""
    picture = (own.catalogue / "images/001.png").read_bytes()
    failed: list[str] = []
    ended = threading.Event()

    def traffic(url: str) -> None:
        with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
            while not ended.is_set():
                answer = client.post(
                    "/v1/query", data={"present": "disc"}, files={"upload": picture}
                )
                if answer.status_code != 200:
                    failed.append(answer.text)
                    continue
                hit = answer.json()["hits"][0]
                thumbnail = client.get(hit["url"])
                if thumbnail.status_code not in (200, 410):
                    failed.append(thumbnail.text)

    with serve(own.index, tmp_path / "server") as server, server.client() as client:

        def held() -> int:
            return len([f for f in server.files() if str(own.index) in f])

        count = client.get("/readyz").json()["images"]
        old = client.get("/v1/images?count=1").json()["images"][0]["url"]
        threads = [threading.Thread(target=traffic, args=(server.url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        before = 0
        for number in range(6):
            if number == 2:
                before = held()
            Image.new("RGB", (40, 40), (number, 0, 0)).save(own.catalogue / "new.png")
            if number % 2 == 0:
                add_images(own.index, ["new.png"])
            else:
                remove_images(own.index, ["new.png"])
            wait_for(client, count + (number % 2 == 0))
        until(lambda: held() <= before)
        ended.set()
        for thread in threads:
            thread.join()
        assert failed == []
        add_images(own.index, ["new.png"])
        wait_for(client, count + 1)
        assert client.get(old).status_code == 410
        # A version that is damaged is not taken up; the one before goes on, and says so.
        (own.index / "manifest.json").write_text("{")
        (own.index / "manifest.previous.json").write_text("{")
        until(lambda: [one for one in server.lines() if one["event"] == "reload failed"])
        assert client.post("/v1/query", files={"upload": picture}).status_code == 200


def test_images_are_changed_with_the_token_alone(own: Shop, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    Image.new("RGB", (50, 50), "blue").save(tmp_path / "blue.png")
    picture = {"upload": (tmp_path / "blue.png").read_bytes()}
    right = {"Authorization": f"Bearer {TOKEN}"}
    with serve(own.index, tmp_path / "server", "--token-file", tmp_path / "token") as server:
        with server.client() as client:
            count = client.get("/readyz").json()["images"]
            for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}):
                answer = client.post("/v1/images", files=picture, headers=wrong)
                assert answer.status_code == 401
            none = client.post("/v1/images", files={"upload": b"no picture"}, headers=right)
            assert none.status_code == 422
            assert not (own.catalogue / "added").exists()
            form = {"labels": ["colour=blue"]}
            added = client.post("/v1/images", data=form, files=picture, headers=right)
            assert (added.status_code, added.json()["added"]) == (200, 1), added.text
            assert client.get("/readyz").json()["images"] == count + 1
            wish = {"include_query": "true", "top_k": "1"}
            hit = client.post("/v1/query", data=wish, files=picture).json()["hits"][0]
            assert hit["known"]["colour"] == ["blue"]
            assert client.delete(hit["url"]).status_code == 401
            assert client.delete(hit["url"], headers=right).json()["removed"] == 1
            assert client.get("/readyz").json()["images"] == count
            assert client.delete(hit["url"], headers=right).status_code == 410
        assert TOKEN not in server.log.read_text()


def test_workers_know_each_others_pictures_and_end_together(shop: Shop, tmp_path: Path) -> None:
    picture = (shop.catalogue / "images/001.png").read_bytes()
    with serve(shop.index, tmp_path / "server", "--workers", 2) as server:
        seen = set()
        for _ in range(40):  # a connection each, which any worker may take
            with server.client() as client:
                name = client.post("/v1/pictures", files={"upload": picture}).json()["picture"]
            with server.client() as client:
                answer = client.post("/v1/query", json={"picture": name})
            assert answer.status_code == 200, answer.text
            seen = {line["pid"] for line in server.lines() if line["event"] == "request"}
            if len(seen) == 2:
                break
        assert len(seen) == 2
        with server.client() as client:
            metrics = client.get("/metrics").text
        counted = sum(line.get("route") == "/v1/query" for line in server.lines())
        assert f'route="/v1/query",status="200"}} {float(counted)}' in metrics
        told = Path(f"/proc/{seen.pop()}/environ").read_text().split("\0")
        (settings,) = [one for one in told if one.startswith("RETRIEVE_SERVE=")]
        shared = Path(json.loads(settings.partition("=")[2])["shared"])
        assert shared.is_dir()
        assert server.end() == 143
        assert not [line for line in server.lines() if line["level"] == "error"]
        assert not shared.exists()


def test_requests_end_before_the_service_does(shop: Shop, tmp_path: Path) -> None:
    """One whose body comes while the service is told to end is answered still."""
    picture = (shop.catalogue / "images/001.png").read_bytes()
    with serve(shop.index, tmp_path / "server") as server:
        started = threading.Event()

        def slowly() -> Iterator[bytes]:
            started.set()
            yield b'--b\r\nContent-Disposition: form-data; name="upload"; filename="x"\r\n\r\n'
            time.sleep(1)
            yield picture + b"\r\n--b--\r\n"

        answers: list[int] = []

        def ask() -> None:
            with server.client() as client:
                kind = {"Content-Type": "multipart/form-data; boundary=b"}
                answer = client.post("/v1/query", content=slowly(), headers=kind)
                answers.append(answer.status_code)

        thread = threading.Thread(target=ask)
        thread.start()
        started.wait()
        with server.client() as client:  # connections are taken in turn
            client.get("/readyz")
        assert server.end() == 143
        thread.join()
        assert answers == [200]


def test_what_cannot_be_served_is_told_as_elsewhere(
    shop: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = run(capsys, "serve", tmp_path / "nothing")
    assert code == 3
    assert "no index in" in told
    (tmp_path / "short").write_text("secret")
    code, _, told = run(capsys, "serve", shop.index, "--token-file", tmp_path / "short")
    assert code == 2
    assert "secret" not in told
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, told = run(capsys, "serve", shop.index, "--port", port)
    assert code == 6
    assert f"127.0.0.1:{port}" in told
