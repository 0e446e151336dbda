"""`retrieve bench peers`: this engine beside an embedding and tags, in faiss and in PostgreSQL.

    retrieve bench peers --dataset data/fashion-products --checkpoint runs/a

What a picture is tagged with are the values that the checkpoint predicts, its embedding is pooled
from the checkpoint's backbone: all three see the same pictures by the same model. What answers are
worth is measured on the labelled test split, with the queries of `retrieve evaluate`; what they
cost on galleries drawn from it, see `benchmarks.speed.drawn_gallery`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click
import numpy as np

from benchmarks.common import (
    Data,
    Result,
    WorkBench,
    bench_command,
    retrieve,
    table,
    vector_instructions,
)
from benchmarks.measured_rows import ShopScorer
from benchmarks.peers.measure import (
    KINDS,
    Contender,
    costs,
    draw_embeddings,
    draw_questions,
    rounded,
)
from benchmarks.peers.peer import FaissPeer, OwnPeer, Peer, PeerScorer, Question
from benchmarks.peers.postgres import (
    PostgresPeer,
    add_hnsw,
    connect,
    fill_table,
    open_database,
    table_bytes,
    versions,
)
from benchmarks.rivals.adde import predicted_values, unit
from benchmarks.speed.drawn_gallery import export_gallery, images_of
from benchmarks.speed.measure import index_bytes
from benchmarks.tables.measure import COMBINATIONS, SPLIT
from indexer.store.store import Store, open_store
from retrieval.console import Bars, stderr
from retrieval.engine import Engine
from retrieval.evaluation.combinations import (
    Combination,
    draw_combinations,
    evaluate_combinations,
)
from retrieval.evaluation.encoded_split import align_dataset, encode_split
from retrieval.evaluation.scorer import DescriptorScorer
from retrieval.options import COUNT, DatasetOptions
from retrieval.picture import stored_pictures
from retrieval.query_vector import draw_requests
from retrieval.tags import thresholds
from training.checkpoint import Checkpoint, load_checkpoint
from training.datasets.dataset import Dataset
from training.descriptor import Floats
from training.device import choose_device
from training.errors import DataError, ResourceError
from training.threads import cores

DIAL = 0.5
"""The middle; the engine's default keeps more of the likeness, at the expense of what is named."""

_SIZES = click.option(
    "--size",
    "sizes",
    multiple=True,
    type=click.IntRange(100),
    default=(10_000, 253_983),
    show_default=True,
    help="Pictures of a gallery.",
)
_POSTGRES = click.option(
    "--postgres",
    metavar="DSN",
    help="A database with pgvector [default: a private server, while it is measured].",
)


@dataclass(frozen=True, kw_only=True)
class Options(WorkBench, DatasetOptions):
    """What is encoded, and the galleries."""

    checkpoint: Annotated[Path, "The trained model."]
    sizes: Annotated[tuple[int, ...], _SIZES]
    postgres: Annotated[str | None, _POSTGRES]
    rounds: Annotated[int, COUNT, "Questions of each kind that every system is asked."] = 100


def markdown(data: Data) -> str:
    """The figures as Markdown."""
    quality = [
        [row["peer"], *(f"{row[name]:.3f}" for name in ("same_p10", "but_p10", "keep10"))]
        for row in data["quality"]
    ]
    rows = []
    for row in data["costs"]:
        times = [f"{row['median'][kind]:.1f} / {row['p95'][kind]:.1f}" for kind in KINDS]
        recall = f"{min(row['recall'].values()):.3f}" if row["recall"] else ""
        size, seconds = row["bytes"] / row["size"], row["seconds"]
        memory = [f"{row['bytes'] / 1e6:,.1f}", f"{size:,.0f}", f"{seconds:,.1f}"]
        rows.append([row["peer"], f"{row['size']:,}", *times, recall, *memory])
    about = (
        f"{data['dataset']}, {data['split']} split, {data['images']:,} pictures, "
        f"{data['backbone']}; embeddings of {data['width']} numbers, "
        f"{data['combinations']} combinations. {data['postgres']}."
    )
    header = ["system", "pictures", *(f"{kind}, ms" for kind in KINDS)]
    header += ["recall@10", "MB", "bytes a picture", "build, s"]
    return "\n\n".join(
        [
            table(["system", "same P@10", "but P@10", "but keep@10"], quality, about),
            table(
                header,
                rows,
                f"Medians / 95th percentiles of {data['rounds']} questions a kind, asked of all in "
                f"turns on {data['machine']}; pictures are encoded already. Recall: of the true "
                "first ten of the same ranking, the worst kind. MB: vectors and tags in memory, "
                "the table and its indexes, descriptors and labels. Building: encoding apart. "
                "pgvector is as it comes but for `hnsw.iterative_scan = strict_order`.",
            ),
        ]
    )


@bench_command("peers", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Measure all systems on the same pictures, in one process."""
    loaded = load_checkpoint(options.checkpoint, choose_device(options.device).device)
    dataset = options.load()
    part, embeddings = embedded_split(
        options, loaded, align_dataset(dataset, loaded.schema).dataset
    )
    real = built_index(options, loaded, part)
    combinations = draw_combinations(part, SPLIT, COMBINATIONS)
    if not combinations:
        raise DataError(f"{part.name}: no two values can be asked together in its {SPLIT} split")
    machine = f"cpu-{cores()}-cores-{vector_instructions().casefold()}"
    data: Data = {
        "dataset": part.name,
        "split": SPLIT,
        "images": len(part),
        "checkpoint_hash": loaded.hash,
        "backbone": loaded.model.config.backbone,
        "width": embeddings.shape[1],
        "combinations": len(combinations),
        "rounds": options.rounds,
    }
    with ExitStack() as stack:
        dsn = None
        try:
            dsn = stack.enter_context(open_database(options.postgres))
            with connect(dsn) as connection:
                data["postgres"] = versions(connection)
        except ResourceError as error:
            data["postgres"] = "PostgreSQL with pgvector is left out"
            stderr.print(f"{data['postgres']}: {error}")
        with contenders(Engine.open(real.folder, "cpu"), embeddings, 0.0, dsn) as some:
            peers = [one.peer for one in some]
            data["quality"] = quality(peers, real, part, embeddings, combinations)
        data["costs"] = []
        stem = f"peers-{part.name}-{machine}"
        for size in options.sizes:
            yield stem, data
            data["costs"] += gallery_costs(options, real, embeddings, combinations, dsn, size)
        yield stem, data


def embedded_split(
    options: Options, loaded: Checkpoint, dataset: Dataset
) -> tuple[Dataset, Floats]:
    """The readable pictures of the test split, and unit vectors [N, D]: pooled from the backbone,
    less their mean, without which all are alike (drawn neighbours would be noise).

    Raises as `encode_split`.
    """
    how = loaded.preprocessing, options.workers
    encoded = encode_split(loaded.model, dataset, SPLIT, *how, cache=options.cache)
    pooled = encoded.bank.pooled
    return encoded.dataset, unit(pooled - pooled.mean(axis=0))


def built_index(options: Options, loaded: Checkpoint, part: Dataset) -> Store:
    """The index of the same pictures, built as a user does; what is there is kept.

    Raises DataError: other pictures can be read than before.
    """
    folder = options.work / "peers" / f"{part.name}-{loaded.hash[:12]}"
    words = [*options.words, "--checkpoint", options.checkpoint]
    retrieve("build-index", *words, "--split", SPLIT, "--out", folder)
    store = open_store(folder)
    if list(store.paths) != list(part.paths):
        raise DataError(f"the pictures of {part.root} changed meanwhile; run it again")
    return store


def thresholds_of(store: Store) -> Floats:
    """From which chances on [K] tags are given to the pictures of an index."""
    return thresholds(load_checkpoint(store.model_folder).training, store.schema)


def quality(
    peers: Sequence[Peer],
    real: Store,
    part: Dataset,
    embeddings: Floats,
    combinations: Sequence[Combination],
) -> list[Data]:
    """What the first ten of each system are worth, by the queries of `retrieve evaluate`; the
    engine's also with the dial at `DIAL`."""
    pictures = stored_pictures(real, np.arange(len(real)))
    questions = [Question(*both) for both in zip(embeddings, pictures, strict=True)]
    schema, layout, codes = real.schema, real.layout, real.descriptors()
    shop = ShopScorer(schema, layout.chances(codes), embeddings, thresholds_of(real))
    own = DescriptorScorer(layout, schema, codes)
    out = []
    for peer in peers:
        others, dials = (own, (None, DIAL)) if isinstance(peer, OwnPeer) else (shop, (None,))
        for scorer in (PeerScorer(peer, questions, others, keep) for keep in dials):
            found = evaluate_combinations(part, SPLIT, scorer, combinations)
            figures: Data = {"peer": scorer.ranked_by, "same_p10": found.same.precision_at_10}
            out.append(
                figures | {"but_p10": found.but.precision_at_10, "keep10": found.but.keep_at_10}
            )
    return out


def gallery_costs(
    options: Options,
    real: Store,
    embeddings: Floats,
    combinations: Sequence[Combination],
    dsn: str | None,
    size: int,
) -> list[Data]:
    """Draw a gallery from the real index and its embeddings, measure it, and remove it again."""
    folder = options.work / "peers" / f"gallery-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images, model = images_of(real), real.model_folder
    try:
        with Bars() as bars:
            took = export_gallery(real.manifest, images, size, folder, model, draw_requests, bars)
        engine = Engine.open(folder, "cpu")
        vectors = draw_embeddings(engine.store, images, embeddings)
        questions = draw_questions(engine.store, vectors, combinations, options.rounds)
        with contenders(engine, vectors, took, dsn) as some:
            stderr.print(f"{size:,} pictures: asking {len(some)} systems in turns")
            return [rounded(cost) for cost in costs(some, questions, size)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def contenders(
    engine: Engine, embeddings: Floats, seconds: float, dsn: str | None
) -> Iterator[list[Contender]]:
    """All systems over the pictures of an index, which took some seconds to build, with embeddings
    [N, D]; those of PostgreSQL if there is a database."""
    store = engine.store
    chances = store.layout.chances(store.descriptors())
    tags = predicted_values(chances, store.schema, thresholds_of(store))
    started = time.perf_counter()
    flat = FaissPeer(embeddings, tags)
    some = [Contender(flat, None, flat.bytes, time.perf_counter() - started)]
    with ExitStack() as stack:
        if dsn is not None:
            connection = stack.enter_context(connect(dsn))
            filled = fill_table(connection, store.schema, embeddings, tags)
            plain, indexed = table_bytes(connection), filled + add_hnsw(connection)
            exact, hnsw = (PostgresPeer(dsn, store.schema, graph) for graph in (False, True))
            stack.callback(exact.close)
            stack.callback(hnsw.close)
            some.append(Contender(exact, flat, plain, filled))
            some.append(Contender(hnsw, exact, table_bytes(connection), indexed))
        size = round(index_bytes(store) * len(store))
        some.append(Contender(OwnPeer(engine), OwnPeer(engine, exact=True), size, seconds))
        yield some
