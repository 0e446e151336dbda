"""DeepFashion's release, ASEN's lists beside it and alone: hand-written files."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.datasets import deepfashion
from training.datasets.deepfashion import Names, new_paths, read_states
from training.errors import DataError

# Types are mixed (shape, texture, part, texture, fabric, style), names contain spaces.
ATTRIBUTES = ["a line 3", "abstract floral   1", "v-neck 4", "zebra 1", "knit 2", "boho 5"]
PATHS = ["img/A_B/img_1.jpg", "img/A_B/img_2.jpg", "img/C/img_1.jpg"]


def listing(lines: list[str]) -> str:
    return "\n".join([str(len(lines)), "header of names", *lines]) + "\n"


FILES = {
    "Anno_coarse/list_attr_cloth.txt": listing(ATTRIBUTES),
    "Anno_coarse/list_attr_img.txt": listing(
        [
            f"{PATHS[0]}      -1  1 -1 -1  0  1 ",
            f"{PATHS[1]}       1 -1 -1  1 -1 -1",
            f"{PATHS[2]}       0  0  0  0  0  0",
        ]
    ),
    "Anno_coarse/list_category_cloth.txt": listing(["Tee  1", "Jeans 2", "Dress 3"]),
    "Anno_coarse/list_category_img.txt": listing(
        [f"{PATHS[2]} 3", f"{PATHS[0]} 1", f"{PATHS[1]} 2"]
    ),
    "Anno_coarse/list_bbox.txt": listing([f"{p} 001 002 {n}0 40" for n, p in enumerate(PATHS, 3)]),
    "Anno_coarse/list_landmarks.txt": listing(
        [
            f"{PATHS[0]} 1 0 10 11 1 12 13 2 000 000 0 16 17 0 18 19 0 20 21",
            f"{PATHS[1]} 2 0 10 11 1 12 13 0 14 15 0 16 17",
            f"{PATHS[2]} 3 " + " ".join(f"0 {x} {x + 1}" for x in range(8)),
        ]
    ),
    "Eval/list_eval_partition.txt": listing(
        [f"{PATHS[0]} train", f"{PATHS[1]} val", f"{PATHS[2]} test"]
    ),
}
SCHEMA = [
    ("texture", ("abstract floral", "zebra")),
    ("fabric", ("knit",)),
    ("shape", ("a line",)),
    ("part", ("v-neck",)),
    ("style", ("boho",)),
]
LABELS = [[1, -1, 0, -1, -1, 1], [-1, 1, -1, 1, -1, -1], [0, 0, 0, 0, 0, 0]]


def write(root: Path, **changes: str | None) -> Path:
    for name, text in (FILES | changes).items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text)
    return root


def test_the_release_is_read(tmp_path: Path) -> None:
    (tmp_path / "Img" / "img").mkdir(parents=True)
    dataset = deepfashion.load(write(tmp_path))
    assert [(a.name, a.values) for a in dataset.schema.attributes] == SCHEMA
    assert all(a.multi for a in dataset.schema.attributes)
    assert dataset.labels.tolist() == LABELS
    assert list(dataset.paths) == PATHS
    assert dataset.root == tmp_path / "Img"
    assert dataset.category.tolist() == [0, 1, 2]
    assert dataset.category_names == ("Tee", "Jeans", "Dress")
    assert dataset.splits.tolist() == ["train", "valid", "test"]
    assert dataset.boxes is not None
    assert dataset.boxes.tolist() == [[1, 2, 30, 40], [1, 2, 40, 40], [1, 2, 50, 40]]
    assert dataset.notes == ()


def test_landmarks_come_into_their_slots(tmp_path: Path) -> None:
    landmarks = deepfashion.load(write(tmp_path)).landmarks
    assert landmarks is not None
    nan = [np.nan] * 3
    # collars, sleeves, waistlines, hems; left before right
    upper = [[0, 10, 11], [1, 12, 13], [2, 0, 0], [0, 16, 17], nan, nan, [0, 18, 19], [0, 20, 21]]
    lower = [nan, nan, nan, nan, [0, 10, 11], [1, 12, 13], [0, 14, 15], [0, 16, 17]]
    full = [[0, x, x + 1] for x in range(8)]
    np.testing.assert_array_equal(landmarks, np.array([upper, lower, full], dtype=np.float32))


def test_optional_lists_and_the_other_layout(tmp_path: Path) -> None:
    moved = {name.replace("Anno_coarse", "Anno"): text for name, text in FILES.items()}
    absent = {name: None for name in FILES if name.startswith("Anno_coarse")}
    moved |= {"Anno/list_bbox.txt": None, "Anno/list_landmarks.txt": None}
    partition = listing([f"{PATHS[0]} train"])
    root = write(tmp_path, **(moved | absent | {"Eval/list_eval_partition.txt": partition}))
    dataset = deepfashion.load(root)
    assert dataset.root == tmp_path
    assert dataset.boxes is None
    assert dataset.landmarks is None
    assert dataset.splits.tolist() == ["train", "", ""]
    assert dataset.notes == ("no list_bbox.txt", "no list_landmarks.txt", "2 images without split")


def test_names_that_fold_to_one_are_kept_apart(tmp_path: Path) -> None:
    names = ["v-neck 4", "V Neck 4", "x 1", "y 2", "z 3", "u 5"]
    root = write(tmp_path, **{"Anno_coarse/list_attr_cloth.txt": listing(names)})
    assert deepfashion.load(root).schema.attributes[3].values == ("v-neck", "V Neck (2)")


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_img.txt", " 0  1 ", " 0 ", r"line 3: expected 6 states .* found 'img/A_B"),
        ("list_attr_img.txt", " 0  1 ", " 0 11 ", r"line 3: expected 6 states"),
        ("list_attr_img.txt", " 0  1 ", " 0  2 ", r"line 3: expected 6 states"),
        ("list_attr_img.txt", " 0  1 ", " 0  - ", r"line 3: expected 6 states"),
        ("list_attr_img.txt", " 0  1 ", " 0 1 -1", r"line 3: expected 6 states"),
        ("list_attr_img.txt", "      -1  1 -1 -1  0  1", "", r"line 3: expected 6 states"),
        ("list_attr_img.txt", "3\n", "4\n", r"line 1 promises 4 entries, there are 3"),
        ("list_attr_img.txt", "3\n", "2\n", r"line 1 promises 2 entries, there are 3"),
        ("list_attr_img.txt", "3\n", "three\n", r"line 1: expected the number of entries"),
        ("list_attr_img.txt", "3\n", "999999999999\n", r"line 1 promises 999999999999 entries"),
        ("list_attr_img.txt", PATHS[1], "../x.jpg", r"line 4: '../x.jpg' is not a path inside"),
        ("list_attr_img.txt", PATHS[1], PATHS[0], r"lists an image twice"),
        ("list_attr_cloth.txt", "zebra 1", "zebra 6", r"line 6: .* type from 1 to 5.*'zebra 6'"),
        ("list_attr_cloth.txt", "zebra 1", "zebra", r"line 6: expected a name and a type"),
        ("list_attr_cloth.txt", "6\n", "7\n", r"promises 7 entries, there are 6"),
        ("list_category_img.txt", "jpg 3", "jpg 4", r"line 3: expected a category from 1 to 3"),
        ("list_category_img.txt", "jpg 3", "jpg 0", r"line 3: expected a category from 1 to 3"),
        ("list_category_img.txt", "jpg 3", "jpg", r"line 3: expected a category from 1 to 3"),
        ("list_category_img.txt", "C/img", "D/img", r"line 3: expected a path that list_attr_img"),
        ("list_bbox.txt", " 40\n", " nan\n", r"line 3: expected coordinates"),
        ("list_bbox.txt", " 40\n", " x\n", r"line 3: expected numbers"),
        ("list_landmarks.txt", "jpg 2", "jpg 1", r"line 4: expected a clothes type"),
        ("list_landmarks.txt", "jpg 2", "jpg 9", r"line 4: expected a clothes type"),
        ("list_eval_partition.txt", " val", " dev", r"line 4: expected train, val or test"),
    ],
)
def test_malformed_lists_are_refused(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    name = next(n for n in FILES if n.endswith(file))
    assert old in FILES[name]
    root = write(tmp_path, **{name: FILES[name].replace(old, new, 1)})
    with pytest.raises(DataError, match=f"{file}.*{message}"):
        deepfashion.load(root)


def test_missing_lists_are_named(tmp_path: Path) -> None:
    root = write(tmp_path, **{"Anno_coarse/list_category_img.txt": None})
    with pytest.raises(DataError, match=r"missing: .*list_category_img.txt; expected files"):
        deepfashion.load(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no label files of DeepFashion; expected .*CUHK"):
        deepfashion.load(tmp_path / "empty")


def test_many_states_equal_plain_parsing(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    states = rng.integers(-1, 2, (4099, 7))
    lines = [f"img/{n}.jpg {' '.join(f'{s:2d}' for s in row)}" for n, row in enumerate(states)]
    file = tmp_path / "list_attr_img.txt"
    file.write_text(listing(lines))
    types = rng.permutation(7)
    row_of: dict[str, int] = {}
    read = read_states(new_paths(file, row_of), Names(("",) * 7, types))
    np.testing.assert_array_equal(read, states[:, np.argsort(types)])
    assert list(row_of) == [line.split()[0] for line in lines]


ASEN = {
    "filenames_test.txt": f"{PATHS[0]}\n{PATHS[1]}\n",
    "query_test.txt": "1 0 1\n",
    "candidate_test.txt": "0 0 0\n0 4 0\n",
    "label_test.txt": "0\t1\t10\t5\t40\t\t\n1\t1\t30\t1\t10\t2\t5\t3\t6\t4\t7\n",
}


def test_lists_beside_the_release_take_their_rows_and_splits(tmp_path: Path) -> None:
    root = write(tmp_path, **ASEN)
    dataset = deepfashion.load(root)
    # Row 0 is in ASEN's test files: it must not be trained on, whatever the partition says.
    assert dataset.splits.tolist() == ["test", "test", "test"]
    assert dataset.labels.tolist() == LABELS
    queries = dataset.protocols["test"].queries
    assert (queries.rows.tolist(), queries.attributes.tolist(), queries.values.tolist()) == (
        [1],
        [0],
        [1],
    )
    write(tmp_path, **{"query_test.txt": "1 1 1\n"})
    with pytest.raises(DataError, match=r"query_test.txt, line 1: expected attribute 1 .* below 1"):
        deepfashion.load(root)
    write(tmp_path, **(ASEN | {"filenames_test.txt": "img/new.jpg\nimg/A_B/img_1.jpg\n"}))
    with pytest.raises(DataError, match=r"1 images that list_attr_img.txt does not have.*new.jpg"):
        deepfashion.load(root)


def test_lists_alone_rank_the_global_ids(tmp_path: Path) -> None:
    for name, text in ASEN.items():
        (tmp_path / name).write_text(text)
    dataset = deepfashion.load(tmp_path)
    # ids of type 1 are 10 and 30, so 30 is value 1 of texture
    assert [a.values for a in dataset.schema.attributes] == [("0", "1"), *[("0",)] * 4]
    assert dataset.labels.tolist() == [[1, -1, 0, 0, 0, 1], [1, 1, 1, 1, 1, 0]]
    assert len(dataset.protocols["test"].candidates.rows) == 2
    counts = dict(zip("abcde", (2, 1, 1, 1, 2), strict=True))
    meta = {"DeepFashion": {"ATTRIBUTES": list("abcde"), "ATTRIBUTES_NUM": counts}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=r"name \[2, 1, 1, 1, 1\] values .* says \[2, 1, 1, 1, 2\]"):
        deepfashion.load(tmp_path)
    (tmp_path / "label_test.txt").write_text("0 6 10\n")
    with pytest.raises(
        DataError, match=r"label_test.txt, line 1: .* an attribute from 1 to 5, found '0 6 10'"
    ):
        deepfashion.load(tmp_path)


def test_a_byte_order_mark_is_no_part_of_any_file(tmp_path: Path) -> None:
    dataset = deepfashion.load(write(tmp_path, **{n: "\ufeff" + t for n, t in FILES.items()}))
    assert dataset.labels.tolist() == LABELS
    assert list(dataset.paths) == PATHS
