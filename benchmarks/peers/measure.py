"""What asking costs, and what answers are worth: systems over one gallery, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Data
from benchmarks.peers.peer import Peer, Question
from benchmarks.rivals.adde import unit
from benchmarks.speed.drawn_gallery import BLOCK, Images, draw_images
from indexer.store.store import Store
from retrieval.evaluation.combinations import Combination
from retrieval.evaluation.scorer import K
from retrieval.picture import stored_pictures
from training.descriptor import GARMENT, Floats

KINDS = ("like alone", "one value", "three values")

_CHECKED = 30  # questions a kind that recall is of


@dataclass(frozen=True)
class Contender:
    """A system, the one whose answers are the true ones of its ranking, the bytes it answers from
    and the seconds that building took, encoding apart."""

    peer: Peer
    truth: Peer | None
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Of one system over a gallery of `size` pictures; by kind of question the median and the 95th
    percentile in ms, and the share of the true first ten that it finds."""

    peer: str
    size: int
    median: dict[str, float]
    p95: dict[str, float]
    recall: dict[str, float]
    bytes: int
    seconds: float


def draw_embeddings(store: Store, real: Images, embeddings: Floats) -> Floats:
    """Unit vectors [N, D] of the pictures of a gallery that `export_gallery` drew from `real` ones
    with these unit vectors: each is its picture's, moved as nuance is."""
    nuance, width = store.layout.nuance, embeddings.shape[1]
    layout = replace(store.layout, groups=(*store.layout.groups, (GARMENT, width)))
    both = replace(real, nuance=np.concatenate([real.nuance, embeddings], axis=1))
    out = np.empty((len(store), width), dtype=np.float32)
    done = 0
    for block in store.blocks():
        for start in range(0, len(block), BLOCK):
            codes = block[start : start + BLOCK]
            drawn = draw_images(both, layout, store.schema, done, done + len(codes))
            again = store.layout.pack(drawn.chances, drawn.nuance[:, :nuance])
            assert np.array_equal(again[:, store.layout.roots], codes[:, store.layout.roots])
            out[done : done + len(codes)] = drawn.nuance[:, nuance:]
            done += len(codes)
    return unit(out)


def draw_questions(
    store: Store, embeddings: Floats, combinations: Sequence[Combination], count: int
) -> dict[str, list[Question]]:
    """`count` questions of each of `KINDS`: pictures of the gallery, drawn, and combinations of
    three values, or of as many as there are, by turns."""
    rows = np.random.default_rng(0).choice(len(store), count, replace=count > len(store))
    most = max(len(one.values) for one in combinations)
    asked = [one.values for one in combinations if len(one.values) == most]
    out: dict[str, list[Question]] = {kind: [] for kind in KINDS}
    for number, (row, picture) in enumerate(zip(rows, stored_pictures(store, rows), strict=True)):
        values = asked[number % len(asked)]
        for kind, own in zip(KINDS, ((), values[number % most :][:1], values), strict=True):
            out[kind].append(Question(embeddings[row], picture, own))
    return out


def costs(
    contenders: Sequence[Contender], questions: Mapping[str, Sequence[Question]], size: int
) -> Iterator[Cost]:
    """Ask every question of every system, in turns, and then what is found of the true answers."""
    spent: dict[tuple[str, str], list[float]] = {}
    for number in range(min(map(len, questions.values()))):
        for kind, own in questions.items():
            for place in range(len(contenders)):  # each is first as often as the others
                peer = contenders[(number + place) % len(contenders)].peer
                started = time.perf_counter()
                peer.ask(own[number], K)
                took = 1000 * (time.perf_counter() - started)
                spent.setdefault((peer.name, kind), []).append(took)
    for one in contenders:
        ms = {kind: np.array(spent[one.peer.name, kind]) for kind in questions}
        yield Cost(
            peer=one.peer.name,
            size=size,
            median={kind: float(np.median(own)) for kind, own in ms.items()},
            p95={kind: float(np.percentile(own, 95)) for kind, own in ms.items()},
            recall={} if one.truth is None else _recall(one.peer, one.truth, questions),
            bytes=one.bytes,
            seconds=one.seconds,
        )


def _recall(
    peer: Peer, truth: Peer, questions: Mapping[str, Sequence[Question]]
) -> dict[str, float]:
    """By kind, the mean share of the true first ten, or fewer, that is among the peer's."""

    def share(question: Question) -> float:
        true: NDArray[np.int64] = truth.ask(question, K)
        return float(np.isin(true, peer.ask(question, K)).mean()) if len(true) else 1.0

    return {
        kind: statistics.mean(share(question) for question in own[:_CHECKED])
        for kind, own in questions.items()
    }


def rounded(cost: Cost) -> Data:
    """Ready for JSON, figures to four digits."""

    def short(value: object) -> object:
        if isinstance(value, dict):
            return {name: short(own) for name, own in value.items()}
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return {name: short(value) for name, value in asdict(cost).items()}
