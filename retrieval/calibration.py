"""How many candidates a recall target needs, measured on a sample of the gallery itself.

A sample of the gallery is searched exactly, under combinations of values that occur in it, with
pictures of it that have the values and pictures that do not. The places that the true first hits
take in the two rough rankings of `two_stage.py` tell which share of the sample has to be kept. A
share of a sample is on the safe side for a larger gallery, whose first ten hits are the best of
what the sample's first ten stand for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

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
from training.models.conditioned import ConditionedEmbedder
from training.schema import Schema

NAME = "calibration.json"
RECALL = 0.98
"""Share of the true first ten that two stages should find."""

SAMPLE = 10_000
_COMBINATIONS = 10
_PICTURES = 12
_HITS = 10
_FORM = 1


@dataclass(frozen=True)
class Calibration:
    """Shares to keep for one recall target.

    Args:
        content: `Manifest.content` of the index.
        recall: the target.
        sample: images that were searched.
        likeness: for hits ranked by likeness under a condition alone.
        score: for hits ranked by the score of named values.
        form: version of this procedure.
    """

    content: str
    recall: float
    sample: int
    likeness: Shares
    score: Shares
    form: int = _FORM

    def shares(self, terms: Terms) -> Shares:
        """What to keep for a request."""
        return self.score if terms.named else self.likeness


def calibrate(
    two_stage: TwoStage,
    pool: ViewPool,
    model: ConditionedEmbedder,
    recall: float = RECALL,
    sample: int = SAMPLE,
) -> Calibration:
    """Measure the shares; seconds for the default sample.

    Args:
        two_stage: of the gallery.
        pool: its views.
        model: its model.
        recall: target, in 0..1.
        sample: images to search, at most.
    """
    store = two_stage.store
    generator = np.random.default_rng(0)
    count = min(sample, len(store))
    rows = np.sort(generator.choice(len(store), count, replace=False))
    likely = np.asarray(store.predicted()[rows], dtype=np.float32)
    places: dict[bool, list[NDArray[np.float64]]] = {True: [], False: []}
    for values in _combinations(store.schema, likely, generator):
        condition = store.schema.value_condition(values)
        vectors = embed(store, pool.model, condition, rows, device=pool.device)
        for place in _pictures(likely, values, generator):
            maps, keys = store.maps(rows[place : place + 1], pool.device)
            (picture,) = pictures_of(model, maps, keys)
            for named in (True, False):
                terms = _terms(store.schema, values, named)
                scores = GalleryScores(store, pool, model, picture, terms)
                places[named].append(_places(two_stage, scores, rows, vectors, place))
    found = {named: np.concatenate(parts, 1) for named, parts in places.items()}
    return Calibration(
        store.manifest.content,
        recall,
        count,
        likeness=_shares(found[False], recall),
        score=_shares(found[True], recall),
    )


def _places(
    two_stage: TwoStage,
    scores: GalleryScores,
    rows: NDArray[np.int64],
    vectors: NDArray[np.float32],
    own: int,
) -> NDArray[np.float64]:
    """Places of the true first hits in both rough rankings, as shares of the sample: [2, hits]."""
    first = two_stage.by_labels(scores, rows)
    second = two_stage.by_views(scores, rows, first)
    true = Cosines(vectors @ scores.z, scores.mean(scores.terms.kept, rows))
    exact = scores.combined(true, rows).total.copy()
    exact[own] = -np.inf  # the picture itself is no hit
    hits = np.argsort(-exact, kind="stable")[:_HITS]
    out = []
    for rough in (first, second):
        total = scores.combined(rough, rows).total
        out.append((total[None, :] > total[hits][:, None]).sum(1) / len(rows))
    return np.array(out)


def _shares(places: NDArray[np.float64], recall: float) -> Shares:
    """Shares that lose, together, no more than the target allows; a quarter of it in reserve."""
    lost = 1 - recall
    first, second = (
        float(np.quantile(row, 1 - part * lost, method="higher"))
        for row, part in zip(places, (0.25, 0.5), strict=True)
    )
    step = 1 / max(len(places[0]), 1)
    return Shares(min(1.0, first + step), min(1.0, second + step))


def _combinations(
    schema: Schema, likely: NDArray[np.float32], generator: np.random.Generator
) -> list[list[int]]:
    """Values of two or three attributes that images of the sample probably have together."""
    out = []
    for number in range(_COMBINATIONS):
        attributes = [n for n in range(len(schema.attributes)) if len(schema.attributes[n].values)]
        size = min(2 + number % 2, len(attributes))
        image = likely[generator.integers(len(likely))]
        chosen = generator.choice(attributes, size, replace=False)
        wheres = [schema.slice_of(int(n)) for n in sorted(chosen)]
        out.append([where.start + int(image[where].argmax()) for where in wheres])
    return out


def _pictures(
    likely: NDArray[np.float32], values: list[int], generator: np.random.Generator
) -> list[int]:
    """Places of pictures: half those that most surely have the values, half any."""
    sure = np.argsort(-likely[:, values].prod(1), kind="stable")[: 10 * _PICTURES]
    half = _PICTURES // 2
    same = generator.choice(sure, min(half, len(sure)), replace=False)
    return [*same.tolist(), *generator.integers(len(likely), size=half).tolist()]


def _terms(schema: Schema, values: list[int], named: bool) -> Terms:
    spoken = sorted({int(schema.attribute_of[v]) for v in values})
    others = tuple(n for n in range(len(schema.attributes)) if n not in spoken)
    return Terms(
        condition=schema.value_condition(values),
        wanted=tuple(values) if named else (),
        unwanted=(),
        spoken=tuple(spoken),
        kept=others if named else (),
        where=(),
        top_k=_HITS,
        trust_labels=False,
    )


def load_calibration(folder: Path, content: str, recall: float) -> Calibration | None:
    """The calibration that was kept in an index; None if there is none that fits."""
    try:
        data = json.loads((folder / NAME).read_text())
        shares = {name: Shares(**data[name]) for name in ("likeness", "score")}
        found = Calibration(**data | shares)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    fits = (found.content, found.recall, found.form) == (content, recall, _FORM)
    return found if fits else None


def save_calibration(folder: Path, calibration: Calibration) -> bool:
    """Keep it in the index; False if the index cannot be written to."""
    try:
        write_file(folder / NAME, json.dumps(asdict(calibration), indent=1).encode())
    except ResourceError:
        return False
    return True
