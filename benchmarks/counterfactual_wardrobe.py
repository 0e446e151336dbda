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
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.wardrobe.cloth import second_ink
from benchmarks.wardrobe.figure import sample_pose
from benchmarks.wardrobe.garment import (
    ATTRIBUTES,
    SLEEVELESS,
    TILTS,
    VALUES,
    Garment,
    sample_garment,
)
from benchmarks.wardrobe.render import Spec, render_image
from benchmarks.wardrobe.scene import sample_scene
from benchmarks.wardrobe.write import PictureJob, save_pictures, write_lines
from retrieval.console import counting

LABELS, QUERIES = "labels.csv", "counterfactual.json"
GALLERY_SEED = 271_828  # far from the wardrobes that models are trained on
_SEEN = 0.004  # least share of the pixels that a change changes
_LEVELS = 20  # and by how many of 255 levels
_TINT = (16.0, 30.0)  # how far the tint of a near garment lies from the answer's, in 8-bit steps
_TRIES = 10_000
_STREAM = 40  # of random numbers; the wardrobe's own streams have other numbers


@dataclass(frozen=True)
class Counterfactual:
    """One query: image paths relative to the folder, the attribute that is changed, and the value
    of it that the answer has."""

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
    first, second = (np.asarray(render_image(Spec(g), size), np.int16) for g in (garment, changed))
    return bool((np.abs(first - second).max(axis=-1) >= _LEVELS).mean() >= _SEEN)


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
    """A garment with the labels of `target`, or all but one drawn one, but of another cloth."""
    direction = rng.normal(size=3)
    step = rng.uniform(*_TINT) * direction / np.linalg.norm(direction)
    fresh = sample_garment(rng)
    near = replace(target, tint=tuple(float(t + s) for t, s in zip(target.tint, step, strict=True)))  # type: ignore[arg-type]
    if rng.random() < 0.5:
        near = replace(near, second_colour=fresh.second_colour)
    if rng.random() < 0.5:
        cut = ("pattern_scale", "pattern_phase", "pattern_turned")
        near = replace(near, **{name: getattr(fresh, name) for name in cut})
    if not other_label:
        return near
    for _ in range(_TRIES):
        attribute = ATTRIBUTES[int(rng.integers(len(ATTRIBUTES)))]
        own, values = near.labels(), VALUES[attribute]
        if own[attribute]:
            other = with_value(near, attribute, values[int(rng.integers(len(values)))])
            if sum(value != own[name] for name, value in other.labels().items()) == 1:
                return other
    raise AssertionError("no label of the garment can change alone")


def draw_counterfactuals(
    folder: Path,
    queries: int = 300,
    others: int = 5100,
    size: int = 96,
    seed: int = GALLERY_SEED,
    workers: int = 1,
) -> list[Counterfactual]:
    """Draw queries, evenly over the attributes, and `others` into `folder`, unless they are there.

    `counterfactual.json` is written last; the files do not depend on the workers. Returns the
    queries in the order in which they were drawn; raises ResourceError.
    """
    file = folder / QUERIES
    if file.is_file():
        return [Counterfactual(**one) for one in json.loads(file.read_text(encoding="utf-8"))]
    changes = []
    for n, attribute in zip(range(queries), cycle(ATTRIBUTES), strict=False):
        changes.append(draw_change(attribute, size, np.random.default_rng([seed, _STREAM, n])))
    rng = np.random.default_rng([seed, _STREAM + 1])
    pictures: list[tuple[Garment, int]] = []  # with their item; a changed garment is another one
    for n, change in enumerate(changes):
        own, changed = (change.garment, 2 * n), (change.changed, 2 * n + 1)
        pictures += [own, changed, own]
    for n in range(others):
        target = changes[n % queries].changed
        # Of the near ones to one answer, every other has all its labels.
        near = n < others // 2
        garment = near_garment(target, n // queries % 2 == 1, rng) if near else sample_garment(rng)
        pictures.append((garment, 2 * queries + n))
    names = [f"images/{number:06d}.jpg" for number in rng.permutation(len(pictures))]
    jobs, lines = [], {}
    for number, ((garment, item), name) in enumerate(zip(pictures, names, strict=True)):
        draw = np.random.default_rng([seed, _STREAM + 2, number])
        spec = Spec(garment, sample_pose(draw), sample_scene(draw, garment.category))
        jobs.append(PictureJob(spec, size, folder / name))
        lines[name] = ",".join((name, "test", str(item), *garment.labels().values()))
    with counting("drawing", len(jobs)) as bar:
        save_pictures(jobs, workers, lambda done: bar(1), [folder / LABELS, file])
    header = ",".join(("image", "split", "item", *ATTRIBUTES))
    write_lines(folder / LABELS, [header, *(lines[name] for name in sorted(lines))])
    drawn = []
    for change in changes:
        query, answer, unchanged, *names = names
        wanted = change.changed.labels()[change.attribute]
        drawn.append(Counterfactual(query, change.attribute, wanted, answer, unchanged))
    write_lines(file, [json.dumps([asdict(one) for one in drawn], indent=1)])
    return drawn
