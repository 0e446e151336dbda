"""Garments drawn again with one attribute changed, and a gallery that makes finding them hard.

Of every query garment are drawn: the query; the *answer*, the same garment with one attribute
changed, on another wearer, elsewhere, in another light; and the *unchanged* garment, drawn anew
likewise. The gallery holds as many others as asked for, half of them *near* ones, that have the
answer's labels in all or all but one attribute and another tint, second colour or cut of the
pattern. The rest are any garments.

    FOLDER/images/*.jpg   FOLDER/labels.csv   FOLDER/counterfactual.json
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from training.errors import DataError, UsageError
from training.wardrobe.fabric import second_ink
from training.wardrobe.garment import SLEEVELESS, Garment, sample_garment
from training.wardrobe.picture import PictureJob, Progress, save_pictures
from training.wardrobe.plan import write_lines
from training.wardrobe.pose import sample_pose
from training.wardrobe.render import render_image
from training.wardrobe.scene import sample_scene
from training.wardrobe.spec import Spec
from training.wardrobe.vocabulary import ATTRIBUTES, TILTS, VALUES

LABELS, QUERIES = "labels.csv", "counterfactual.json"
_SEEN = 0.004  # least share of the pixels that a change changes
_LEVELS = 20  # and by how many of 255 levels
_TINT = (16.0, 30.0)  # how far the tint of a near garment lies from the answer's, in 8-bit steps
_TRIES = 10_000
_STREAM = 40  # of random numbers; the wardrobe's own streams have other numbers


@dataclass(frozen=True)
class Counterfactual:
    """One query.

    Args:
        query, answer, unchanged: image paths relative to the folder.
        attribute: the one that is changed.
        wanted: the answer's value of it.
    """

    query: str
    attribute: str
    wanted: str
    answer: str
    unchanged: str


@dataclass(frozen=True)
class Change:
    """A garment, the attribute that is changed, and the garment with the change."""

    garment: Garment
    attribute: str
    changed: Garment


@dataclass(frozen=True)
class _Picture:
    garment: Garment
    item: int


def with_value(garment: Garment, attribute: str, value: str) -> Garment:
    """The garment with another value of one attribute; all else is as it was."""
    return replace(garment, **{attribute.replace("-", "_"): value})  # type: ignore[arg-type]


def shows_second_colour(garment: Garment) -> bool:
    """Whether the second colour is to be seen on a garment."""
    raglan = garment.has_sleeves and garment.sleeve_shape == "raglan-sleeve"
    return garment.pattern != "solid" or raglan or garment.category in ("t-shirt", "dress")


def is_only_change(garment: Garment, changed: Garment) -> bool:
    """Whether a change of one value leaves the rest of what is seen as it was, and guessable.

    It does not if a sleeve comes or goes (its shape is another label), if the second colour is
    seen first now or had to give way to the new main one, or if the category has no such garments.
    """
    if garment.has_sleeves != changed.has_sleeves:
        return False
    if shows_second_colour(changed) and not shows_second_colour(garment):
        return False
    if not np.array_equal(second_ink(garment), second_ink(changed)):
        return False
    tilt = TILTS[changed.category]
    return all(tilt.get(value, 1.0) > 0 for value in changed.labels().values())


def looks_changed(garment: Garment, changed: Garment, size: int) -> bool:
    """Whether the two look different, drawn upright in plain light at `size` pixels."""
    first, second = (
        np.asarray(render_image(Spec(g), size), dtype=np.int16) for g in (garment, changed)
    )
    share = (np.abs(first - second).max(axis=-1) >= _LEVELS).mean()
    return bool(share >= _SEEN)


def draw_change(attribute: str, size: int, rng: np.random.Generator) -> Change:
    """Draw a garment and another value of `attribute` whose effect shows at `size` pixels."""
    for _ in range(_TRIES):
        garment = sample_garment(rng)
        if attribute == "sleeve-shape" and not garment.has_sleeves:
            continue
        own = garment.labels()[attribute]
        values = [v for v in VALUES[attribute] if v != own and v != SLEEVELESS]
        changed = with_value(garment, attribute, values[int(rng.integers(len(values)))])
        if is_only_change(garment, changed) and looks_changed(garment, changed, size):
            return Change(garment, attribute, changed)
    raise AssertionError(f"no garment can change its {attribute}")


def near_garment(target: Garment, other_label: bool, rng: np.random.Generator) -> Garment:
    """A garment with the labels of `target`, or all but one, but of another cloth.

    Args:
        target: what it is near to.
        other_label: whether one attribute, drawn, has another value.
        rng: of the draw.
    """
    direction = rng.normal(size=3)
    step = rng.uniform(*_TINT) * direction / np.linalg.norm(direction)
    fresh = sample_garment(rng)
    near = replace(target, tint=tuple(float(t + s) for t, s in zip(target.tint, step, strict=True)))  # type: ignore[arg-type]
    if rng.random() < 0.5:
        near = replace(near, second_colour=fresh.second_colour)
    if rng.random() < 0.5:
        near = replace(
            near,
            pattern_scale=fresh.pattern_scale,
            pattern_phase=fresh.pattern_phase,
            pattern_turned=fresh.pattern_turned,
        )
    if not other_label:
        return near
    for _ in range(_TRIES):
        attribute = ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))]
        own, values = near.labels()[attribute], VALUES[attribute]
        if own:
            other = with_value(near, attribute, values[int(rng.integers(len(values)))])
            differ = sum(a != b for a, b in zip(*_labels(target, other), strict=True))
            if differ == 1:
                return other
    raise AssertionError("no label of the garment can change alone")


def _labels(*garments: Garment) -> list[list[str]]:
    return [list(garment.labels().values()) for garment in garments]


def draw_counterfactuals(
    folder: Path,
    queries: int = 300,
    others: int = 5100,
    size: int = 96,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Counterfactual]:
    """Draw queries and gallery into `folder`.

    Args:
        folder: created if absent; `counterfactual.json` is written last.
        queries: garments that are changed, evenly over the attributes in their order.
        others: garments of the gallery besides theirs, half of them near ones.
        size: side of the pictures in pixels.
        seed: of everything.
        workers: processes that draw; the files do not depend on it.
        progress: called with the number of pictures drawn.

    Returns:
        The queries in the order in which they were drawn.

    Raises:
        UsageError: a number out of its range.
        ResourceError: something cannot be written.
    """
    if queries < 1 or others < 0 or seed < 0:
        raise UsageError(
            f"{queries} queries, {others} others, seed {seed}; use 1 or more, 0 or more, 0 or more"
        )
    changes = [
        draw_change(
            ATTRIBUTES[n % len(ATTRIBUTES)], size, np.random.default_rng([seed, _STREAM, n])
        )
        for n in range(queries)
    ]
    rng = np.random.default_rng([seed, _STREAM + 1])
    pictures: list[_Picture] = []
    for n, change in enumerate(changes):  # a changed garment is another item
        pictures += [
            _Picture(change.garment, 2 * n),
            _Picture(change.changed, 2 * n + 1),
            _Picture(change.garment, 2 * n),
        ]
    for n in range(others):
        near = n < others // 2
        target = changes[n % queries].changed
        # Of the near ones to one answer, every other has all its labels.
        garment = (
            near_garment(target, (n // queries) % 2 == 1, rng) if near else sample_garment(rng)
        )
        pictures.append(_Picture(garment, 2 * queries + n))
    place = rng.permutation(len(pictures))  # names tell nothing
    names = [f"images/{number:06d}.jpg" for number in place]
    jobs, lines = [], {}
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        own = np.random.default_rng([seed, _STREAM + 2, number])
        spec = Spec(picture.garment, sample_pose(own), sample_scene(own, picture.garment.category))
        jobs.append(PictureJob(spec, size, folder / name))
        labels = picture.garment.labels().values()
        lines[name] = ",".join((name, "test", str(picture.item), *labels))
    save_pictures(jobs, workers, progress, [folder / LABELS, folder / QUERIES])
    header = ",".join(("image", "split", "item", *ATTRIBUTES))
    write_lines(folder / LABELS, [header, *(lines[name] for name in sorted(lines))])
    drawn = [
        Counterfactual(
            names[3 * n],
            change.attribute,
            change.changed.labels()[change.attribute],
            names[3 * n + 1],
            names[3 * n + 2],
        )
        for n, change in enumerate(changes)
    ]
    write_lines(folder / QUERIES, [json.dumps([asdict(one) for one in drawn], indent=1)])
    return drawn


def read_counterfactuals(folder: Path) -> list[Counterfactual]:
    """The queries of a folder that was drawn.

    Raises:
        DataError: it has none, or they cannot be read.
    """
    file = folder / QUERIES
    try:
        return [Counterfactual(**one) for one in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot read the queries in {file}: {error}; draw them again") from error
