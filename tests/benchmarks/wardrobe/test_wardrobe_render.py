import hashlib
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from benchmarks.wardrobe.garment import ATTRIBUTES, VALUES, Garment, wardrobe_schema
from benchmarks.wardrobe.render import Spec, item_of, render, render_image, sample_spec, split_of
from training.errors import UsageError
from training.schema import normalise_name

PLAIN_GARMENT = Garment(
    category="sweater",
    button="no-button",
    colour="blue",
    length="thigh-length",
    pattern="solid",
    shape="straight-fit",
    collar_shape="round-neckline",
    sleeve_length="long-sleeve",
    sleeve_shape="straight-sleeve",
    second_colour="yellow",
    tint=(0.0, 0.0, 0.0),
    pattern_scale=1.0,
    pattern_phase=(0.3, 0.3),
    pattern_turned=False,
)
SIBLINGS = [(a, x, y) for a in ATTRIBUTES for x, y in combinations(VALUES[a], 2)]


def dressed(attribute: str, value: str) -> Spec:
    return Spec(replace(PLAIN_GARMENT, **{attribute.replace("-", "_"): value}))


def digest(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def test_names_are_the_nine_of_darn_and_none_occurs_twice():
    names = [normalise_name(v) for values in VALUES.values() for v in values]
    assert len(ATTRIBUTES) == 9
    assert len(names) == len(set(names))
    assert not set(names) & {normalise_name(a) for a in ATTRIBUTES}
    schema = wardrobe_schema()
    condition = schema.condition(present=["v-neckline", "floral", "long-sleeve"])
    assert int(condition.sum()) == 3


@pytest.mark.parametrize("index", [0, 1, 7, 1234])
def test_a_picture_depends_on_seed_and_index_alone(index):
    first = digest(render_image(sample_spec(3, index), 64))
    for other in range(4):  # whatever was drawn in between
        render_image(sample_spec(9, other), 64)
    assert digest(render_image(sample_spec(3, index), 64)) == first
    assert digest(render_image(sample_spec(4, index), 64)) != first
    assert digest(render_image(sample_spec(3, index + 1), 64)) != first


@pytest.mark.parametrize(("attribute", "one", "other"), SIBLINGS)
def test_siblings_differ_inside_the_region_of_their_part(attribute, one, other):
    first, second = render(dressed(attribute, one), 96), render(dressed(attribute, other), 96)
    change = np.abs(
        np.asarray(first.image, dtype=np.float64) - np.asarray(second.image, dtype=np.float64)
    ).mean(axis=2)
    region = first.masks[attribute] | second.masks[attribute]
    inside, outside = change[region].mean(), change[~region].mean()
    assert inside > 2.5, (inside, outside)
    # Between two hems, a whole stretch of garment comes or goes; elsewhere the part alone changes.
    assert inside > (3 if attribute == "length" else 6) * outside, (inside, outside)


@pytest.mark.parametrize("size", [48, 96, 224])
def test_masks_are_in_the_picture_and_not_empty(size):
    for index in range(60):
        rendered = render(sample_spec(5, index), size)
        assert rendered.image.size == (size, size)
        assert rendered.image.mode == "RGB"
        assert tuple(rendered.masks) == ATTRIBUTES
        for name, mask in rendered.masks.items():
            assert mask.shape == (size, size), name
            assert mask.dtype == bool, name
            assert 0.002 < mask.mean() < 0.6, (index, name, mask.mean())


def test_the_garment_mask_is_where_its_colour_is():
    for index in range(12):
        spec = sample_spec(2, index)
        garment = replace(spec.garment, tint=(0.0, 0.0, 0.0), pattern="solid", category="vest")
        pictures = [
            render(replace(spec, garment=replace(garment, colour=c, second_colour=s)), 96)
            for c, s in (("red", "black"), ("green", "white"))
        ]
        change = np.abs(np.subtract(*(np.asarray(p.image, dtype=float) for p in pictures)))
        changed = change.max(axis=2) > 60
        mask = pictures[0].masks["colour"]
        assert (changed & mask).sum() > 0.95 * changed.sum(), index


def test_items_share_the_garment_and_never_straddle_a_split():
    seen: dict[int, object] = {}
    splits: dict[int, str] = {}
    for index in range(350):
        item, view = item_of(index)
        garment = sample_spec(1, index).garment
        assert seen.setdefault(item, garment) == garment
        assert splits.setdefault(item, split_of(1, item)) == split_of(1, item)
        assert (view == 0) == (index == 0 or item_of(index - 1)[0] == item - 1)
    counts = {s: list(splits.values()).count(s) for s in ("train", "valid", "test")}
    assert counts == {"train": 160, "valid": 20, "test": 20}


def test_every_value_occurs_and_the_combination_of_the_issue_is_common():
    labels = [sample_spec(0, index).garment.labels() for index in range(3000)]
    for attribute, values in VALUES.items():
        found = {one[attribute] for one in labels} - {""}
        assert found == set(values)
        counts = [sum(one[attribute] == v for one in labels) for v in values]
        assert min(counts) >= 60, (attribute, counts)
        assert max(counts) > 1.25 * min(counts), attribute
    for one in labels:
        assert (one["sleeve-shape"] == "") == (one["sleeve-length"] == "sleeveless")
    wanted = {"collar-shape": "v-neckline", "pattern": "floral", "sleeve-length": "long-sleeve"}
    assert sum(all(one[a] == v for a, v in wanted.items()) for one in labels) >= 15


def test_too_small_a_picture_is_refused():
    with pytest.raises(UsageError, match="size is 8"):
        render_image(sample_spec(0, 0), 8)
