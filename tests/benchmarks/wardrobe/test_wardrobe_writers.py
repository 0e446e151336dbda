import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.wardrobe.garment import ATTRIBUTES, VALUES
from benchmarks.wardrobe.render import sample_spec
from benchmarks.wardrobe.write import (
    DARN_NAMES,
    PictureJob,
    plan,
    save_pictures,
    write_catalogue,
    write_darn,
    write_deepfashion,
)
from training.datasets import asen as darn
from training.datasets import catalogue, deepfashion
from training.errors import DataError, ResourceError, UsageError

COUNT, SIZE, SEED = 130, 32, 6


@pytest.fixture(scope="module")
def catalogue_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("catalogue")
    write_catalogue(folder, COUNT, SIZE, SEED, masks=True)
    return folder


@pytest.fixture(scope="module")
def darn_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("darn")
    write_darn(folder, COUNT, SIZE, SEED)
    return folder


@pytest.fixture(scope="module")
def deepfashion_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deepfashion")
    write_deepfashion(folder, COUNT, SIZE, SEED)
    return folder


def labels_of(dataset, row: int) -> dict[str, str]:
    """What the label states of one row say, in words."""
    said = {}
    for number, attribute in enumerate(dataset.schema.attributes):
        states = dataset.labels[row, dataset.schema.slice_of(number)]
        has = (states == 1).any()
        said[attribute.name] = attribute.values[int(states.argmax())] if has else ""
    return said


def test_catalogue_round_trip(catalogue_folder):
    dataset = catalogue.load(catalogue_folder)
    planned = plan(COUNT, SEED)
    assert tuple(a.name for a in dataset.schema.attributes) == ATTRIBUTES
    for row, picture in enumerate(planned):
        assert labels_of(dataset, row) == picture.labels
        lacking = dataset.schema.inapplicable(dataset.labels[[row]])[0]
        assert np.flatnonzero(lacking).tolist() == [
            n for n, v in enumerate(picture.labels.values()) if not v
        ]
        assert dataset.splits[row] == picture.split
        with Image.open(catalogue_folder / dataset.paths[row]) as image:
            assert (image.format, image.size) == ("JPEG", (SIZE, SIZE))
    assert set(dataset.splits) == {"train", "valid", "test"}


def test_catalogue_masks(catalogue_folder):
    files = sorted((catalogue_folder / "masks").iterdir())
    assert len(files) == COUNT
    with np.load(files[3], allow_pickle=False) as masks:
        assert tuple(masks) == ATTRIBUTES
        assert masks["pattern"].shape == (SIZE, SIZE)


def test_catalogue_splits_are_grouped_by_item(catalogue_folder):
    with (catalogue_folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["item"], set()).add(row["split"])
    assert all(len(s) == 1 for s in splits.values())
    assert Counter(len(s) for s in splits.values())[1] == len(splits) == 75


def test_bytes_do_not_depend_on_the_workers(tmp_path, catalogue_folder):
    jobs = [PictureJob(sample_spec(SEED, i), SIZE, tmp_path / f"{i:06d}.jpg") for i in range(6)]
    ticks: list[int] = []
    save_pictures(jobs, workers=2, progress=ticks.append)
    assert ticks == [1, 2, 3, 4, 5, 6]
    for job in jobs:
        assert job.path.read_bytes() == (catalogue_folder / "images" / job.path.name).read_bytes()


def test_darn_lines_parse_and_agree(darn_folder):
    meta = json.loads((darn_folder / "meta.json").read_text())["DARN"]
    names = json.loads((darn_folder / "names.json").read_text())
    assert meta["ATTRIBUTES"] == list(DARN_NAMES) == list(names)
    assert {a: len(v) for a, v in names.items()} == meta["ATTRIBUTES_NUM"]
    category_of_folder: dict[str, set[str]] = {}
    items: dict[tuple[str, ...], set[str]] = {}
    total = 0
    for split in ("train", "valid", "test"):
        paths = (darn_folder / f"filenames_{split}.txt").read_text().splitlines()
        total += len(paths)
        files = ["label"] if split == "train" else ["query", "candidate"]
        seen: dict[str, set[int]] = {}
        for kind in files:
            seen[kind] = set()
            attributes = set()
            for line in (darn_folder / f"{kind}_{split}.txt").read_text().splitlines():
                index, *pairs = map(int, line.split())
                assert 0 <= index < len(paths)
                assert len(pairs) % 2 == 0
                assert kind == "label" or len(pairs) == 2
                seen[kind].add(index)
                for attribute, value in zip(pairs[::2], pairs[1::2], strict=True):
                    attributes.add(attribute)
                    assert 0 <= value < len(names[DARN_NAMES[attribute]])
                    if attribute == 0:
                        folder = paths[index].split("/")[1]
                        category = names["clothes category"][value]
                        category_of_folder.setdefault(folder, set()).add(category)
            assert attributes == set(range(9)), (split, kind)
        assert set().union(*seen.values()) == set(range(len(paths)))
        if split != "train":
            assert not seen["query"] & seen["candidate"]
            assert abs(4 * len(seen["query"]) - len(seen["candidate"])) <= 4
        for path in paths:
            top, folder, name = path.split("/")
            a, b, c = Path(name).stem.split("_")
            assert top == "pic"
            assert c.isdigit()
            assert (darn_folder / path).is_file()
            items.setdefault((folder, a, b), set()).add(split)
    assert total == COUNT
    assert all(len(s) == 1 for s in items.values())
    assert all(len(c) == 1 for c in category_of_folder.values())
    assert len({c for cs in category_of_folder.values() for c in cs}) == len(category_of_folder)


def test_darn_adapter_reads_the_same_labels(darn_folder):
    dataset = darn.load_darn(darn_folder)
    assert len(dataset) == COUNT
    said = Counter(tuple(labels_of(dataset, row).values()) for row in range(COUNT))
    assert said == Counter(tuple(p.labels.values()) for p in plan(COUNT, SEED))
    assert Counter(dataset.splits.tolist()) == Counter(p.split for p in plan(COUNT, SEED))
    assert set(dataset.protocols) == {"valid", "test"}
    assert dataset.items is not None
    assert len(set(dataset.items.tolist())) == 75
    assert int(dataset.schema.condition(["v-neckline", "floral"]).sum()) == 2


def test_deepfashion_adapter_reads_the_same_labels(deepfashion_folder):
    dataset = deepfashion.load(deepfashion_folder)
    planned = plan(COUNT, SEED)
    assert [a.name for a in dataset.schema.attributes] == [
        *("texture", "fabric", "shape", "part", "style")
    ]
    for row, picture in enumerate(planned):
        present = {
            n for n, s in zip(dataset.schema.value_names, dataset.labels[row], strict=True) if s > 0
        }
        own = {v for a, v in picture.labels.items() if v and a != "category"}
        assert own < present
        assert len(present) == len(own) + 1  # the style
        assert dataset.category_names[dataset.category[row]] == picture.labels["category"]
        assert dataset.splits[row] == picture.split
        assert (dataset.root / dataset.paths[row]).is_file()
    unknown = sum(not p.labels["sleeve-shape"] for p in planned)
    assert (dataset.labels == 0).sum() == unknown * len(VALUES["sleeve-shape"])


def test_deepfashion_boxes_and_landmarks(deepfashion_folder):
    dataset = deepfashion.load(deepfashion_folder)
    assert dataset.boxes is not None
    assert dataset.landmarks is not None
    first, last = dataset.boxes[:, :2], dataset.boxes[:, 2:]
    assert (first >= 0).all()
    assert (last < SIZE).all()
    assert (last - first > 0.2 * SIZE).all()
    for box, marks in zip(dataset.boxes, dataset.landmarks, strict=True):
        known = marks[~np.isnan(marks[:, 0])]
        assert len(known) in (6, 8)
        assert (known[:, 1:] >= box[:2] - 1.5).all()
        assert (known[:, 1:] <= box[2:] + 1.5).all()
        assert (known[0::2, 1] < known[1::2, 1]).all()  # left before right
        assert known[-2:, 2].mean() > known[:2, 2].mean()  # hems below collars


@pytest.mark.parametrize(
    ("write", "load"),
    [
        (write_catalogue, catalogue.load),
        (write_darn, darn.load_darn),
        (write_deepfashion, deepfashion.load),
    ],
)
def test_an_interruption_leaves_no_labels_of_pictures_that_were_replaced(tmp_path, write, load):
    def interrupt(drawn: int) -> None:
        if drawn == 3:
            raise KeyboardInterrupt

    write(tmp_path, 50, SIZE, seed=1)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 50, SIZE, seed=2, progress=interrupt)
    with pytest.raises(DataError):
        load(tmp_path)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".jpg"}
    write(tmp_path, 50, SIZE, seed=2)
    assert len(load(tmp_path)) == 50


def test_refusals(tmp_path):
    with pytest.raises(UsageError, match="count is 0"):
        write_catalogue(tmp_path, 0)
    with pytest.raises(UsageError, match="seed is -1"):
        write_catalogue(tmp_path, 1, seed=-1)
    with pytest.raises(UsageError, match="at least 50"):
        write_darn(tmp_path, 20)
    with pytest.raises(UsageError, match="workers is 0"):
        write_catalogue(tmp_path, 1, workers=0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="file"):
        write_catalogue(tmp_path / "file", 1, 32)
