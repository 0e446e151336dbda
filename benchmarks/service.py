"""What serving costs and what it withstands: `retrieve serve`, on this machine, by its own clients.

    retrieve bench service --index INDEX --size 253983 --minutes 30

A gallery of `--size` images is drawn from the descriptors of INDEX (see `speed/drawn_gallery`); its
pictures, which encoding is measured with, are those of INDEX. Clients share the cores with the
server.
"""

from __future__ import annotations

import http.client
import io
import itertools
import json
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image

from benchmarks.common import Bench, Data, Result, bench_command, table, vector_instructions
from benchmarks.served import Server, serve
from benchmarks.speed.drawn_gallery import export_gallery, images_of
from indexer.build.edit import add_images, remove_images
from indexer.store.manifest import commit_manifest
from indexer.store.store import Store, open_store
from retrieval.console import Bars, say
from retrieval.engine import Engine
from retrieval.options import COUNT
from retrieval.query_vector import draw_requests
from retrieval.request import Request
from training.errors import UsageError

_BOUNDARY = "b0undary"
_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
_SECONDS = 10.0  # of a flood
_PAINT = """() => new Promise((done) => new PerformanceObserver((found) => {
  done(found.getEntries().at(-1).startTime);
}).observe({ type: "largest-contentful-paint", buffered: true }))"""
_TAKEN = """() => performance.getEntriesByType("resource").concat(
  performance.getEntriesByType("navigation")).reduce((sum, one) => sum + one.transferSize, 0)"""


@dataclass(frozen=True, kw_only=True)
class Options(Bench):
    """What is served, and for how long."""

    index: Annotated[Path, "Index whose images are there."]
    size: Annotated[int, COUNT, "Images of the gallery that is drawn from it."] = 253_983
    minutes: Annotated[float, "Of mixed traffic."] = 30.0
    reloads: Annotated[int, COUNT, "New versions under traffic."] = 20


def markdown(data: Data) -> str:
    """The figures as Markdown."""
    rows = [[row["what"], row["value"], row["bar"]] for row in data["rows"]]
    return table(
        ["what", "measured", "bar"],
        rows,
        f"{data['size']:,} images drawn from {data['index']} on {data['machine']}; one worker, "
        "clients on the same cores.",
    )


@bench_command("service", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Measure `retrieve serve` and flood it, change its index under traffic, let it run."""
    real = open_store(options.index)
    paths = (real.root / path for path in real.paths)
    pictures = list(itertools.islice((p.read_bytes() for p in paths if p.is_file()), 64))
    if not pictures:
        raise UsageError(f"no image of {options.index} is in {real.root} any more")
    rows: list[dict[str, str]] = []

    def result() -> Result:
        data = {"size": options.size, "index": real.manifest.dataset, "rows": rows}
        return f"service-{vector_instructions().casefold()}", data

    with tempfile.TemporaryDirectory(prefix="bench-service-") as work:
        gallery = Path(work) / "gallery"
        gallery.mkdir()
        with Bars() as bars:
            told = real.manifest, images_of(real), options.size, gallery, real.model_folder
            export_gallery(*told, draw_requests, bars)
        with serve(gallery, Path(work) / "large") as server:
            rows += measured(server, gallery, pictures)
            yield result()
        small = Path(work) / "small"
        shutil.copytree(options.index, small)
        with serve(small, Path(work) / "edited") as server:
            rows += painted(server)
            rows += edited(server, small, pictures, options.reloads)
        with serve(gallery, Path(work) / "lasting") as server:
            rows.append(lasting(server, pictures, options.minutes))
        yield result()


def measured(server: Server, gallery: Path, pictures: list[bytes]) -> list[dict[str, str]]:
    """What requests cost, and what floods and slow clients do."""
    engine = Engine.open(gallery, "cpu")
    wishes = mixed_wishes(engine, 100)
    rows = [ready(server)]
    with server.client() as client:
        ids = [client.post("/v1/pictures", files={"upload": p}).json()["picture"] for p in pictures]
        known = [engine.encode(picture) for picture in pictures]
        same = 0
        for number, wish in enumerate(wishes):
            place = number % len(ids)
            told = client.post("/v1/query", json=wish | {"picture": ids[place]}).json()
            expected = engine.query(Request(known[place], **wish))
            same += [hit["image"].split("/")[1] for hit in told["hits"]] == [
                str(hit.row) for hit in expected
            ]
    rows.append(_row("ids equal to the engine's, 100 mixed requests", f"{same}", "100"))
    rows.append(overhead(server, engine, wishes, ids, known))
    bodies = [json.dumps(w | {"picture": i}).encode() for w in wishes for i in ids[:4]]
    for clients, bar in ((1, "30 ms"), (4, "30 / 80 ms")):
        took = flood(server, clients, bodies, _JSON).took
        words = f"{1000 * statistics.median(took):.1f} / {1000 * quantile(took, 0.99):.1f} ms"
        what = f"a repeated picture, other chips, clients: {clients}; median / p99"
        rows.append(_row(what, words, bar))
    few = flood(server, 4, fresh_forms(pictures), _FORM)
    many = flood(server, 120, fresh_forms(pictures), _FORM)
    ratio = many.counts[200] / max(few.counts[200], 1)
    rows.append(
        _row(
            "new pictures answered by 120 clients, against 4",
            f"{ratio:.2f} ({few.counts[200] / _SECONDS:.1f} a second by 4)",
            "0.8",
        )
    )
    others = {code: count for code, count in many.counts.items() if code not in (200, 503)}
    rows.append(_row("neither 200 nor 503 with Retry-After", str(others or 0), "0"))
    rows.append(_row("longest answer of /healthz meanwhile", f"{many.health:.3f} s", "0.5 s"))
    return rows + ended(server)


def mixed_wishes(engine: Engine, count: int) -> list[dict[str, Any]]:
    """Values wanted and unwanted, attributes to compare by, dials: drawn."""
    random, schema, out = np.random.default_rng(0), engine.schema, []
    for _ in range(count):
        attributes = random.permutation(len(schema.attributes))[: random.integers(0, 4)]
        names = [
            str(random.choice(schema.value_names[schema.slice_of(n)])) for n in attributes.tolist()
        ]
        cut = int(random.integers(0, len(names) + 1))
        like = [] if names else [schema.attributes[0].name]
        keep = round(float(random.random()), 2)
        out.append({"present": names[cut:], "absent": names[:cut], "like": like, "keep": keep})
    return out


def overhead(
    server: Server, engine: Engine, wishes: list[dict[str, Any]], ids: list[str], known: list[Any]
) -> dict[str, str]:
    """CPU of a query over HTTP beyond the engine's own."""
    bodies = [
        json.dumps(wish | {"picture": ids[n % len(ids)]}).encode() for n, wish in enumerate(wishes)
    ]
    rounds, own = [], []
    for _ in range(5):
        line, before = http.client.HTTPConnection(*server.place), server.cpu()
        for body in bodies:
            ask(line, body, _JSON)
        line.close()
        between, mine = server.cpu(), time.process_time()
        for number, wish in enumerate(wishes):
            engine.query(Request(known[number % len(known)], **wish))
        own.append((time.process_time() - mine) / len(wishes))
        rounds.append((between - before) / len(wishes) - own[-1])
    added, alone = (1000 * statistics.median(each) for each in (rounds, own))
    words = f"{added:.1f} ms (to {alone:.1f} ms)"
    return _row("CPU that HTTP adds to a query of a repeated picture", words, "5 ms")


@dataclass
class Flood:
    """What came of one: answers by status, 0 for none, 1 for a 503 without Retry-After; seconds of
    each; the longest of /healthz."""

    counts: Counter[int]
    took: list[float]
    health: float


def flood(
    server: Server,
    clients: int,
    bodies: list[bytes],
    headers: dict[str, str],
    seconds: float = _SECONDS,
) -> Flood:
    """So many clients, each asking again as soon as it is answered, and one for /healthz."""
    found = Flood(Counter(), [], 0.0)
    until = time.monotonic() + seconds
    turn = itertools.count()

    def work() -> None:
        line = http.client.HTTPConnection(*server.place, timeout=60)
        while time.monotonic() < until:
            start = time.monotonic()
            try:
                status, told, _ = ask(line, bodies[next(turn) % len(bodies)], headers)
            except (OSError, http.client.HTTPException):
                line.close()
                status, told = 0, {}
            after = told.get("retry-after")
            found.counts[1 if status == 503 and after is None else status] += 1
            found.took.append(time.monotonic() - start)
            if status == 503:
                time.sleep(min(float(after or 1), max(0.0, until - time.monotonic())))
        line.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        start = time.monotonic()
        line = http.client.HTTPConnection(*server.place, timeout=60)
        line.request("GET", "/healthz")
        line.getresponse().read()
        line.close()
        found.health = max(found.health, time.monotonic() - start)
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    return found


def ask(
    line: http.client.HTTPConnection, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of an answer to a query."""
    line.request("POST", "/v1/query", body, headers)
    answer = line.getresponse()
    told = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, told, answer.read()


def fresh_forms(pictures: list[bytes], count: int = 1500) -> list[bytes]:
    """Forms with pictures of which no two are byte-equal: none is known to the server."""
    salt = time.time_ns()
    begin = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="upload"; filename="x"\r\n\r\n'
    end = f"\r\n--{_BOUNDARY}--\r\n"
    return [
        begin.encode() + pictures[n % len(pictures)] + f"{salt + n}".encode() + end.encode()
        for n in range(count)
    ]


def ended(server: Server) -> list[dict[str, str]]:
    """Seconds until a client is ended that sends too much, or nothing more."""
    head = b"POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    large = b"Transfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + bytes(2**20) + b"\r\n") * 22
    rows = []
    for what, status, sent in (
        ("413, announced", 413, head + b"Content-Length: 30000000\r\n\r\n"),
        ("413, chunked", 413, head + large),
        ("slow head", 408, head),
        ("slow body", 408, head + b"Content-Length: 1000\r\n\r\n{"),
    ):
        start = time.monotonic()
        with socket.create_connection(server.place, timeout=30) as line:
            line.sendall(sent)
            answer = b""
            while part := line.recv(65536):
                answer += part
        right = answer.split(b" ")[1] == str(status).encode()
        told = f"{time.monotonic() - start:.1f} s" if right else "another answer"
        rows.append(_row(f"{what}: ended after", told, "6 s"))
    return rows


def ready(server: Server) -> dict[str, str]:
    """Seconds from the start of the process until it answers."""
    return _row("ready after start", f"{server.started:.1f} s", "2 s")


def painted(server: Server) -> list[dict[str, str]]:
    """What a browser, if there is one, takes to show hits: seconds and bytes, nothing cached."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return []
    from playwright.sync_api import sync_playwright

    with server.client() as client, sync_playwright() as playwright:
        picture = client.get("/v1/images?count=1").json()["images"][0]["picture"]
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        seconds, taken = [], []
        for _ in range(5):
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto(f"{server.url}/?picture={picture}", wait_until="networkidle")
            seconds.append(page.evaluate(_PAINT) / 1000)
            taken.append(page.evaluate(_TAKEN) / 1000)
            page.context.close()
        browser.close()
    return [
        _row("page with hits: largest paint", f"{statistics.median(seconds):.2f} s", "1 s"),
        _row("page with hits: transferred", f"{statistics.median(taken):.0f} KB", "500 KB"),
    ]


def edited(server: Server, index: Path, pictures: list[bytes], times: int) -> list[dict[str, str]]:
    """New versions under traffic: requests that failed, and what is left of the old ones."""
    added = "bench-service-added.png"
    root = index.parent / "images"  # a folder that may be written to, as if it were the gallery's
    root.mkdir()
    commit_manifest(index, _moved(open_store(index), root))
    with server.client() as client:
        _await(client, lambda told: bool(told["images"]))
    time.sleep(2)
    failed: Counter[int] = Counter()
    over = threading.Event()

    def traffic() -> None:
        line = http.client.HTTPConnection(*server.place, timeout=60)
        for body in itertools.cycle(fresh_forms(pictures, 64)):
            if over.is_set():
                break
            status, *_ = ask(line, body, _FORM)
            failed[status] += status != 200
        line.close()

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    files = memory = 0
    with server.client() as client:
        for number in range(times):
            if number == 2:
                files, memory = len(server.files()), server.status("VmRSS")
            before = client.get("/readyz").json()["content"]
            if number % 2:
                remove_images(index, [added])
            else:
                colour = (number * 10 % 256, 0, 0)
                out = io.BytesIO()
                Image.new("RGB", (64, 64), colour).save(out, "PNG")
                (root / added).write_bytes(out.getvalue())
                add_images(index, [added])
            _await(client, partial(_other, before))
        time.sleep(2)
        now = len(server.files()), server.status("VmRSS")
    over.set()
    for thread in threads:
        thread.join()
    grown = 100 * (now[1] / memory - 1)
    return [
        _row(f"{times} versions under traffic: failed requests", str(sum(failed.values())), "0"),
        _row("file descriptors more than after the second", str(now[0] - files), "0"),
        _row("memory more than after the second", f"{grown:+.1f} %", "0"),
    ]


def _moved(store: Store, root: Path) -> Any:
    return replace(store.manifest, root=str(root))


def _other(content: str, told: dict[str, Any]) -> bool:
    return bool(told["content"] != content)


def _await(client: Any, there: Callable[[dict[str, Any]], bool]) -> None:
    late = time.monotonic() + 60
    while not there(client.get("/readyz").json()):
        if time.monotonic() > late:
            raise UsageError("the service does not take up the new version")
        time.sleep(0.1)


def lasting(server: Server, pictures: list[bytes], minutes: float) -> dict[str, str]:
    """Memory in the last third of mixed traffic against the first."""
    sizes: list[int] = []
    part = max(1, round(60 * minutes / 5))
    forms = fresh_forms(pictures)
    for number in range(part):
        flood(server, 4, forms[number % 7 :: 7], _FORM, 5)
        sizes.append(server.status("VmRSS"))
        if number % 60 == 59:
            say(f"{(number + 1) / 12:.0f} of {minutes:.0f} minutes, {sizes[-1] / 1024:.0f} MB")
    third = max(1, len(sizes) // 3)
    grown = 100 * (statistics.mean(sizes[-third:]) / statistics.mean(sizes[:third]) - 1)
    what = f"memory, last third of {minutes:g} minutes of traffic against the first"
    return _row(what, f"{grown:+.1f} %", "2 %")


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _row(what: str, value: str, bar: str) -> dict[str, str]:
    return {"what": what, "value": value, "bar": bar}
