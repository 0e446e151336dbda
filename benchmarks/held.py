"""`retrieve bench held`: an index in PostgreSQL beside the same in its files.

    retrieve bench held --index INDEX --size 100000

The gallery is drawn from the descriptors of INDEX, see `benchmarks.speed.drawn_gallery`. Both are
asked the same requests of all kinds, half of them with a filter; what is right is what the files
answer where every descriptor is scored.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import click
import numpy as np

from benchmarks.common import Data, Result, WorkBench, bench_command, table, vector_instructions
from benchmarks.private_server import private_server
from benchmarks.speed.drawn_gallery import export_gallery, images_of
from benchmarks.speed.measure import combinations
from indexer.hold.export import export_index
from indexer.store.store import open_store
from retrieval.console import Bars, stderr
from retrieval.engine import Engine
from retrieval.hits import QueryResult
from retrieval.options import PATH
from retrieval.picture import stored_pictures
from retrieval.query_vector import draw_requests
from retrieval.request import Request
from training.threads import cores

KINDS = ("likeness", "by attributes", "one value", "two or three", "one unwanted")

_HITS = 10
_FILTERS = 10
_LEAST = 20  # images that a filter leaves
_INDEX = click.option("--index", "source", required=True, type=PATH)
_SIZES = click.option(
    "--size", "sizes", multiple=True, type=click.IntRange(100), default=(100_000,)
)


@dataclass(frozen=True, kw_only=True)
class Options(WorkBench):
    """Which index the gallery is drawn from, of how many images, and how often it is asked."""

    source: Annotated[Path, _INDEX]
    sizes: Annotated[tuple[int, ...], _SIZES]
    requests: Annotated[int, click.IntRange(20), "Half of them with a filter."] = 200
    postgres: Annotated[str | None, "URL of a database [default: a private server]."] = None


def draw_questions(engine: Engine, count: int) -> list[tuple[str, str, Request]]:
    """Kind, filter and request: kinds by turns, the second half with filters by turns."""
    schema, held = engine.schema, engine.held
    random = np.random.default_rng(0)
    rows = random.permutation(len(held))[: count % (len(held) + 1)]
    pictures = stored_pictures(engine.store, np.resize(rows, count))
    counts = held.labelled()
    common = np.flatnonzero((counts >= _LEAST) & (counts <= len(held) - _LEAST))
    filters: list[Mapping[str, str]] = []
    for number, flat in enumerate(random.permutation(common)[:_FILTERS].tolist()):
        owner = schema.attributes[int(schema.attribute_of[flat])]
        value = owner.values[flat - schema.offsets[int(schema.attribute_of[flat])]]
        filters.append({owner.name: ("=", "!=")[number % 3 == 2] + value})
    out = []
    names = combinations(engine, 3 * count)
    for number, picture in enumerate(pictures):
        one, two, three = names[3 * number : 3 * number + 3]
        by = [schema.attributes[int(schema.attribute_of[schema.value(n)])].name for n in three]
        words: Mapping[str, Any] = (
            {},
            {"like": by},
            {"present": one},
            {"present": (two, three)[number % 2]},
            {"present": two[1:], "absent": two[:1]},
        )[number % len(KINDS)]
        where = filters[number % len(filters)] if filters and number >= count // 2 else {}
        said = " and ".join(f"{name}{text}" for name, text in where.items())
        request = Request(picture, where=where, top_k=_HITS, **words)
        out.append((KINDS[number % len(KINDS)], said, request))
    return out


def measure(
    engine: Engine, questions: Sequence[tuple[str, str, Request]], right: Sequence[float]
) -> Data:
    """Medians and 95th percentiles, ms, and recall, of one engine."""
    engine.query(questions[0][2])
    spent, found = [], []
    for (_, _, request), tenth in zip(questions, right, strict=True):
        engine.query(request)  # filters are counted once
        started = time.perf_counter()
        result = engine.query(request)
        spent.append(1000 * (time.perf_counter() - started))
        found.append(_share(result, tenth))
    ms, recall = np.array(spent), np.array(found)
    kinds = np.array([kind for kind, _, _ in questions])
    wheres = np.array([where for _, where, _ in questions])
    parts = {kind: (kinds == kind) & (wheres == "") for kind in KINDS}
    parts["with a filter"] = wheres != ""
    filters = sorted(set(wheres.tolist()) - {""})
    return {
        "median": {name: float(np.median(ms[own])) for name, own in parts.items()},
        "p95": {name: float(np.percentile(ms[own], 95)) for name, own in parts.items()},
        "recall": {name: float(recall[own].mean()) for name, own in parts.items()},
        "all": float(recall.mean()),
        "worst_filter": min((float(recall[wheres == one].mean()) for one in filters), default=1.0),
    }


def _share(result: QueryResult, tenth: float) -> float:
    """Of the hits that there are to be found, those that are as good as the true tenth."""
    least = min(_HITS, result.searched)
    good = sum(hit.score >= tenth - 1e-6 for hit in result)
    return min(1.0, good / least) if least else 1.0


def markdown(data: Data) -> str:
    """The figures as Markdown."""
    rows = []
    for row in data["rows"]:
        times = [
            f"{row['median'][name]:.1f} / {row['p95'][name]:.1f} / {row['recall'][name]:.3f}"
            for name in row["median"]
        ]
        rows.append(
            [
                row["held"],
                f"{row['size']:,}",
                *times,
                f"{row['all']:.3f}",
                f"{row['worst_filter']:.3f}",
                f"{row['bytes']:,.0f}",
                f"{row['seconds']:,.0f}",
            ]
        )
    parts = list(data["rows"][0]["median"]) if data["rows"] else []
    return table(
        ["held by", "images", *parts, "recall@10", "worst filter", "bytes an image", "export, s"],
        rows,
        f"{data['requests']} requests, half of them with one of {_FILTERS} filters; pictures are "
        "encoded already. Median ms / 95th percentile / recall@10 against the search that scores "
        f"every descriptor. Descriptors of {data['width']} bytes; {data['postgres']}. Of files the "
        "bytes are those of descriptors.",
    )


@bench_command("held", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Ask the same of an index in PostgreSQL and in its files."""
    real = open_store(options.source)
    stem = f"held-cpu-{cores()}-cores-{vector_instructions().casefold()}"
    data: Data = {"requests": options.requests, "width": real.layout.width, "rows": []}
    with ExitStack() as stack:
        url = options.postgres or stack.enter_context(private_server()).url
        url += f"{'&' if '?' in url else '?'}table=retrieve_bench_held"
        for size in options.sizes:
            folder = options.work / "held" / str(size)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with Bars() as bars:
                model, images = real.model_folder, images_of(real)
                export_gallery(real.manifest, images, size, folder, model, draw_requests, bars)
                started = time.perf_counter()
                export_index(folder, url, draw_requests, bars)
            took = time.perf_counter() - started
            local = Engine.open(folder, "cpu")
            held = Engine.open(url, "cpu", root=folder)
            questions = draw_questions(local, options.requests)
            stderr.print(f"{size:,} images: asking {len(questions)} requests")
            right = [_tenth(local, request) for _, _, request in questions]
            data["postgres"], total = _about(url)
            for name, engine, each, seconds in (
                ("files", local, float(real.layout.width), 0.0),
                ("PostgreSQL, pgvector", held, total / size, took),
            ):
                row = measure(engine, questions, right)
                row |= {"held": name, "size": size, "bytes": each, "seconds": seconds}
                data["rows"].append(row)
            shutil.rmtree(folder, ignore_errors=True)
            yield stem, data


def _tenth(engine: Engine, request: Request) -> float:
    """Score of the last of the true hits."""
    found = engine.query(replace(request, exact=True))
    return min((hit.score for hit in found), default=0.0)


def _about(url: str) -> tuple[str, int]:
    """Versions, and bytes of the table with its indexes."""
    from indexer.hold.postgres import Place

    place = Place(url)
    with place.connect() as connection:
        (server,) = connection.execute("SHOW server_version").fetchone()
        (vector,) = connection.execute(
            "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        ).fetchone()
        (total,) = connection.execute(f"SELECT pg_total_relation_size('{place.table}')").fetchone()
    return f"PostgreSQL {server.split()[0]}, pgvector {vector}", int(total)
