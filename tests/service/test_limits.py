"""What a client may not do: send too much, too slowly, or stay away; and a flood."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import starlette.requests
from small_index import Shop

from benchmarks.served import Server
from service.api import read
from service.desk import Desk
from service.problems import Refusal
from service.words import Asking

HEAD = b"POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="upload"; filename="x"\r\n\r\n'
LONGEST = 9.0  # seconds until an end; the service promises 6


def told(server: Server, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that the server says to some parts, until it closes; it has to."""
    with socket.create_connection(server.place, timeout=LONGEST) as line:
        try:
            for part in parts:
                line.sendall(part)
                time.sleep(pause)
        except OSError:  # it has closed
            pass
        answer = b""
        try:
            while part := line.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_body_over_the_limit_is_refused_whether_announced_or_not(server: Server) -> None:
    """Though the client sends all of it, it can read why; 413 is a problem as others are."""
    much = b"x" * (2 * 2**20)
    announced = HEAD + b"Content-Length: %d\r\n\r\n" % (len(PART) + len(much))
    chunks = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(32))
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(PART) + PART + b"\r\n"
    for answer in (
        told(server, announced),
        told(server, announced, PART, much),
        told(server, chunked, chunks),
        told(server, HEAD + b"Content-Length: 999999999999999\r\n\r\n"),
    ):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert status(head) == 413
        assert b"connection: close" in head
        assert json.loads(body)["status"] == 413


def test_slow_clients_are_ended(server: Server) -> None:
    """A head or a body that stops, or trickles, and a connection that says nothing."""
    drops = [b"x"] * 40
    cases: list[tuple[int | None, tuple[bytes, ...], float]] = [
        (None, (), 0),
        (408, (b"POST /v1/que",), 0),
        (408, (b"GET / HTTP/1.1\r\nA: ", *drops), 0.25),
        (408, (HEAD + b"Content-Length: 5000\r\n\r\n", PART), 0),
        (408, (HEAD + b"Content-Length: 5000\r\n\r\n", *drops), 0.25),
        (431, (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,), 0),
    ]
    with ThreadPoolExecutor(len(cases)) as pool:
        answers = list(pool.map(lambda case: told(server, *case[1], pause=case[2]), cases))
    for (expected, *_), answer in zip(cases, answers, strict=True):
        assert (status(answer) if answer else None) == expected
    assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200


def test_nothing_that_is_sent_lies_on_a_disk(server: Server) -> None:
    """Not while it comes, either: descriptors tell of files that were unlinked, too."""
    temporary = server.log.parent / "tmp"
    half = b"x" * 900_000
    with socket.create_connection(server.place, timeout=LONGEST) as line:
        line.sendall(HEAD + b"Content-Length: 1040000\r\n\r\n" + PART + half)
        time.sleep(0.5)
        files = server.files()
    assert [name for name in files if "(deleted)" in name or str(temporary) in name] == []
    assert set(os.listdir(temporary)) <= {".ses"}  # of onnxruntime, whenever it is imported


def test_a_large_file_of_a_form_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette writes one of more than 1 MB to a disk."""

    def never(self: object) -> None:
        raise AssertionError("written to a disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", never)
    large = os.urandom(3 * 2**20)
    request = httpx.Request("POST", "http://x", files={"upload": large})

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": request.read(), "more_body": False}

    headers = [(name.lower(), value) for name, value in request.headers.raw]
    http = starlette.requests.Request({"type": "http", "headers": headers}, receive)
    assert asyncio.run(read(http, Asking))[1] == large


def test_a_form_of_many_parts_is_refused(client: httpx.Client, shop: Shop) -> None:
    picture = (shop.catalogue / "images/000.png").read_bytes()
    two = [("upload", ("a", picture)), ("upload", ("b", picture))]
    assert client.post("/v1/query", files=two).status_code == 400
    many = {"upload": picture} | {f"x{n}": (None, "y") for n in range(300)}
    assert client.post("/v1/query", files=many).status_code == 400


def test_a_client_that_leaves_is_forgotten(server: Server, shop: Shop) -> None:
    picture = (shop.catalogue / "images/009.png").read_bytes()
    body = PART + picture + b"\r\n--b--\r\n"
    for _ in range(20):
        with socket.create_connection(server.place, timeout=LONGEST) as line:
            line.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    with server.client() as client:
        late = time.monotonic() + 10
        while "\nretrieve_work 0.0\n" not in client.get("/metrics").text:
            assert time.monotonic() < late
            time.sleep(0.1)
        assert client.post("/v1/query", files={"upload": picture}).status_code == 200


def _on_a_desk(threads: int, patience: float, use: Callable[[Desk], object]) -> None:
    async def run() -> None:
        desk = Desk(threads, patience)
        try:
            await use(desk)  # type: ignore[misc]
        finally:
            desk.close()

    asyncio.run(run())


def test_no_more_is_admitted_than_is_soon_done() -> None:
    """Of a flood as many as the threads do in the patience; the others learn when to come again."""

    async def use(desk: Desk) -> None:
        await asyncio.gather(*(desk.do("slow", lambda: time.sleep(0.2)) for _ in range(4)))
        jobs = [desk.do("slow", lambda: time.sleep(0.2)) for _ in range(200)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        refused = [one for one in found if isinstance(one, Refusal)]
        assert all(one.status == 503 and int(one.headers["Retry-After"]) >= 1 for one in refused)
        assert 4 <= 200 - len(refused) <= 20  # 1 s of 2 threads, 0.2 s each: about ten
        assert await desk.do("slow", lambda: 7) == 7  # and afterwards all is well

    _on_a_desk(2, 1.0, use)


def test_work_that_nobody_waits_for_is_not_begun() -> None:
    done: list[int] = []
    go = threading.Event()

    async def use(desk: Desk) -> None:
        first = asyncio.ensure_future(desk.do("first", go.wait))
        others = [asyncio.ensure_future(desk.do("x", lambda n=n: done.append(n))) for n in range(5)]
        await asyncio.sleep(0.05)
        for other in others[:4]:
            other.cancel()
        await asyncio.gather(*others[:4], return_exceptions=True)
        go.set()
        await first
        await others[4]
        assert done == [4]
        desk.admit()

    _on_a_desk(1, 5.0, use)


def test_errors_of_work_are_those_of_the_call() -> None:
    async def use(desk: Desk) -> None:
        with pytest.raises(ZeroDivisionError):
            await desk.do("x", lambda: 1 // 0)
        desk.admit()

    _on_a_desk(1, 1.0, use)


def test_the_page_is_strict(client: httpx.Client) -> None:
    """What it may load comes from here alone, and no script stands in it."""
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    folder = Path(__file__).parents[2] / "service/page"
    for file in folder.iterdir():
        text = file.read_text()
        assert "innerHTML" not in text
        assert not [
            word for word in ("http://", "https://") if word in text and file.suffix != ".svg"
        ]
        assert client.get(f"/page/{file.name}").content == file.read_bytes()
