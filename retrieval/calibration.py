"""How many candidates a recall target needs, measured on a sample of the gallery itself.

A sample of the gallery is searched exactly, under combinations of values that occur in it, with
pictures of it that have the values and pictures that do not. The places that the true first hits
take in the two rough rankings of `two_stage.py` tell which share of the sample has to be kept. A
share of a sample is on the safe side for a larger gallery, whose first ten hits are the best of
what the sample's first ten stand for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.atomic import write_file
from indexer.views import embed
from retrieval.gallery_scores import Cosines, GalleryScores
from retrieval.picture import pictures_of
from retrieval.request import Terms
from retrieval.two_stage import Shares, TwoStage
from retrieval.view_pool import ViewPool
from training.errors import ResourceError
from training.schema import Schema

NAME = "calibration.json"
RECALL = 0.98
"""Share of the true first ten that two stages should find."""

EVERYTHING = Shares(1.0, 1.0)

SAMPLE = 5_000
_COMBINATIONS = 12
_PICTURES = 8
_HITS = 10
_FORM = 5


@dataclass(frozen=True)
class Calibration:
    """Shares to keep for one recall target.

    Args:
        content: `Manifest.content` of the index.
        recall: the target.
        sample: images that were searched.
        score: for hits ranked by the score of named values.
        types: for hits ranked by likeness under several types.
        form: version of this procedure.
    """

    content: str
    recall: float
    sample: int
    score: Shares
    types: Shares
    form: int = _FORM

    def shares(self, terms: Terms, schema: Schema) -> Shares:
        """What to keep for a request: everything where likeness alone counts under a condition
        that names values, since what a model sees under it follows from no view."""
        if terms.named:
            return self.score
        types = [schema.type_condition(number) for number in terms.spoken]
        return self.types if np.array_equal(terms.condition, sum(types)) else EVERYTHING


def calibrate(
    two_stage: TwoStage,
    pool: ViewPool,
    recall: float = RECALL,
    sample: int = SAMPLE,
) -> Calibration:
    """Measure the shares; seconds for the default sample.

    Args:
        two_stage: of the gallery.
        pool: its views.
        recall: target, in 0..1.
        sample: images to search, at most.
    """
    store = two_stage.store
    generator = np.random.default_rng(0)
    count = min(sample, len(store))
    rows = np.sort(generator.choice(len(store), count, replace=False))
    likely = np.asarray(store.predicted()[rows], dtype=np.float32)
    places: dict[bool, list[NDArray[np.float64]]] = {True: [], False: []}
    for values, asked in _requests(store.schema, likely, generator):
        conditions = {terms.condition.tobytes(): terms.condition for terms in asked}
        vectors = {
            key: embed(store, pool.model, condition, rows, device=pool.device)
            for key, condition in conditions.items()
        }
        for place in _pictures(likely, values, generator):
            maps, keys = store.maps(rows[place : place + 1], pool.device)
            (picture,) = pictures_of(pool.model, maps, keys)
            for terms in asked:
                scores = GalleryScores(store, pool, picture, terms)
                own = vectors[terms.condition.tobytes()]
                found = _places(two_stage, scores, rows, own, place)
                places[bool(terms.named)].append(found)
    score, types = (_shares(np.concatenate(places[named], 1), recall) for named in (True, False))
    return Calibration(store.manifest.content, recall, count, score, types)


def _places(
    two_stage: TwoStage,
    scores: GalleryScores,
    rows: NDArray[np.int64],
    vectors: NDArray[np.float32],
    own: int,
) -> NDArray[np.float64]:
    """Places of the true first hits in both rough rankings, as shares of the sample: [2, hits]."""
    if two_stage.holds_predictions:
        first = two_stage.by_labels(scores, rows)
        second = two_stage.by_views(scores, rows, first)
    else:
        first = second = two_stage.by_views(scores, rows, None)
    true = Cosines(vectors @ scores.z, scores.mean(scores.terms.kept, rows))
    exact = scores.combined(true, rows).total.copy()
    exact[own] = -np.inf  # the picture itself is no hit
    hits = np.argsort(-exact, kind="stable")[:_HITS]
    near = _near(scores, rows, two_stage.near * len(rows) / len(two_stage.store))
    out = []
    for rough in (first, second):
        total = scores.combined(rough, rows).total
        places = (total[None, :] > total[hits][:, None]).sum(1) / len(rows)
        out.append(np.where(np.isin(hits, near), 0.0, places))
    return np.array(out)


def _near(scores: GalleryScores, rows: NDArray[np.int64], near: float) -> NDArray[np.int64]:
    """Places in the sample of so many nearest under each type concerned."""
    count = max(1, round(near))
    found = []
    for number in {*scores.terms.spoken, *scores.terms.kept}:
        condition = scores.store.schema.type_condition(number)
        if scores.pool.existing(condition) is not None:
            cosines = scores.cosines(condition, scores.by_type[number], rows)
            found.append(np.argsort(-cosines, kind="stable")[:count])
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _shares(places: NDArray[np.float64], recall: float) -> Shares:
    """Shares that lose, together, no more than the target allows; a quarter of it in reserve."""
    lost = 1 - recall
    first, second = (
        float(np.quantile(row, 1 - part * lost, method="higher"))
        for row, part in zip(places, (0.25, 0.5), strict=True)
    )
    step = 1 / max(len(places[0]), 1)
    return Shares(min(1.0, first + step), min(1.0, second + step))


def _requests(
    schema: Schema, likely: NDArray[np.float32], generator: np.random.Generator
) -> Iterator[tuple[list[int], list[Terms]]]:
    """Two or three values that an image of the sample probably has together, and requests made of
    them: plain, one of them unwanted, and with a type to compare by, in turn, with the values
    named; and by likeness under their types."""
    attributes = np.array([n for n, a in enumerate(schema.attributes) if a.values])
    for number in range(_COMBINATIONS):
        chosen = generator.permutation(attributes)[: 2 + number % 2]
        image = likely[generator.integers(len(likely))]
        values = []
        for attribute in sorted(chosen.tolist()):
            where = schema.slice_of(attribute)
            values.append(where.start + int(image[where].argmax()))
        kind = number % 4  # every other one is plain
        absent = values[-1:] if kind == 1 and len(values) > 1 else []
        present = [v for v in values if v not in absent]
        types: list[int] = []
        if kind == 3:
            types = [n for n in attributes.tolist() if n not in chosen][:1]
        condition = schema.value_condition(present)
        condition[absent] = -1
        for attribute in types:
            condition[schema.slice_of(attribute)] = 1
        spoken = sorted([*chosen.tolist(), *types])
        others = [n for n in range(len(schema.attributes)) if n not in spoken]
        kept = tuple(types or others)
        named = Terms(
            condition, tuple(present), tuple(absent), tuple(spoken), kept, (), _HITS, False
        )
        by_type = np.zeros_like(condition)
        for attribute in spoken:
            by_type[schema.slice_of(attribute)] = 1
        alike = replace(named, condition=by_type, wanted=(), unwanted=(), kept=())
        yield present, [named, alike]


def _pictures(
    likely: NDArray[np.float32], values: list[int], generator: np.random.Generator
) -> list[int]:
    """Places of pictures: half those that most surely have the values, half any."""
    sure = np.argsort(-likely[:, values].prod(1), kind="stable")[: 10 * _PICTURES]
    half = _PICTURES // 2
    same = generator.choice(sure, min(half, len(sure)), replace=False)
    return [*same.tolist(), *generator.integers(len(likely), size=half).tolist()]


def load_calibration(folder: Path, content: str, recall: float) -> Calibration | None:
    """The calibration that was kept in an index; None if there is none that fits, or is damaged."""
    try:
        data = json.loads((folder / NAME).read_bytes())
        if data.pop("checksum") != _checksum(data):
            return None
        shares = {name: Shares(**data[name]) for name in ("score", "types")}
        found = Calibration(**data | shares)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    fits = (found.content, found.recall, found.form) == (content, recall, _FORM)
    return found if fits else None


def save_calibration(folder: Path, calibration: Calibration) -> bool:
    """Keep it in the index; False if the index cannot be written to."""
    body = asdict(calibration)
    try:
        write_file(
            folder / NAME, json.dumps(body | {"checksum": _checksum(body)}, indent=1).encode()
        )
    except ResourceError:
        return False
    return True


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
