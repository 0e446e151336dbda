"""DeepFashion's Anno_fine: one file a split and kind, without headers."""

from pathlib import Path

import numpy as np
import pytest

from training.datasets import deepfashion, load_dataset
from training.errors import DataError

NAMES = ["floral 1", "solid 1", "long_sleeve 2", "sleeveless 2", "tight 6"]
FILES = {
    "list_attr_cloth.txt": "\n".join(["5", "attribute_name attribute_type", *NAMES]),
    "list_category_cloth.txt": "2\ncategory_name category_type\nTee 1\nJeans 2\n",
    "train.txt": "img/A/1.jpg\nimg/A/2.jpg\n",
    "train_attr.txt": "1 0 0 1 1\n0 0 1 0 0 \n",
    "train_cate.txt": "1\n2\n",
    "train_bbox.txt": "1 2 30 40\n5 6 70 80\n",
    "train_landmarks.txt": (
        "1 2 3 4 0 0 7 8 9 10 11 12 0 0 0 0\n1 2 3 4 5 6 7 8 0 0 0 0 0 0 0 0\n"
    ),
    "test.txt": "img/B/1.jpg\n",
    "test_attr.txt": "0 1 0 1 0\n",
    "test_cate.txt": "2\n",
}


def write(root: Path, **changes: str) -> Path:
    folder = root / "Anno_fine"
    folder.mkdir(exist_ok=True)
    for name, text in (FILES | changes).items():
        (folder / name).write_text(text)
    return root


def test_splits_states_and_categories(tmp_path: Path) -> None:
    dataset = deepfashion.load(write(tmp_path))
    assert [(a.name, a.values, a.multi) for a in dataset.schema.attributes] == [
        ("texture", ("floral", "solid"), False),
        ("sleeve", ("long_sleeve", "sleeveless"), False),
        ("fit", ("tight",), False),
    ]
    # An attribute without a value is unknown, not absent.
    assert dataset.labels.tolist() == [[1, -1, -1, 1, 1], [0, 0, 1, -1, 0], [-1, 1, -1, 1, 0]]
    assert dataset.splits.tolist() == ["train", "train", "test"]
    assert list(dataset.paths) == ["img/A/1.jpg", "img/A/2.jpg", "img/B/1.jpg"]
    assert dataset.category.tolist() == [0, 1, 1]


def test_a_folder_with_anno_fine_alone_is_read_without_being_asked_for(tmp_path: Path) -> None:
    dataset = load_dataset(str(write(tmp_path)))
    assert dataset.name == "deepfashion"
    assert dataset.labels.tolist() == deepfashion.load(tmp_path).labels.tolist()


def test_boxes_and_landmarks_of_a_split_without_them_are_nan(tmp_path: Path) -> None:
    dataset = deepfashion.load(write(tmp_path))
    nan = np.nan
    assert dataset.boxes is not None
    np.testing.assert_array_equal(dataset.boxes, [[1, 2, 30, 40], [5, 6, 70, 80], [nan] * 4])
    none = [nan] * 3
    tee = [[0, 1, 2], [0, 3, 4], [2, 0, 0], [0, 7, 8], none, none, [0, 9, 10], [0, 11, 12]]
    jeans = [none] * 4 + [[0, 1, 2], [0, 3, 4], [0, 5, 6], [0, 7, 8]]
    np.testing.assert_array_equal(dataset.landmarks, [tee, jeans, [none] * 8])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train_attr.txt", "1 0 0 1 1\n", r"train_attr.txt has 1 lines, .* has 2"),
        ("train_attr.txt", "1 0 0 1\n0 0 0 0 0\n", r"train_attr.txt, line 1: expected 5 states"),
        ("train_cate.txt", "1\n", r"train_cate.txt has 1 lines, .* has 2"),
        ("train_cate.txt", "1\n3\n", r"train_cate.txt, line 2: expected a category from 1 to 2"),
        ("train_bbox.txt", "1 2 3\n1 2 3 4\n", r"train_bbox.txt, line 1: expected 4 numbers"),
        ("train.txt", "img/A/1.jpg\n/img/A/2.jpg\n", r"train.txt, line 2: '/img/A/2.jpg'"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = write(tmp_path, **{file: text})
    with pytest.raises(DataError, match=message):
        deepfashion.load(root)


def test_absence_is_explained(tmp_path: Path) -> None:
    root = write(tmp_path)
    for name in ("train.txt", "test.txt"):
        (root / "Anno_fine" / name).unlink()
    with pytest.raises(DataError, match=r"no train.txt, val.txt or test.txt; expected"):
        deepfashion.load(root)


def test_a_byte_order_mark_is_no_part_of_any_file(tmp_path: Path) -> None:
    plain = deepfashion.load(write(tmp_path))
    write(tmp_path, **{name: "\ufeff" + text for name, text in FILES.items()})
    dataset = deepfashion.load(tmp_path)
    assert dataset.labels.tolist() == plain.labels.tolist()
    assert list(dataset.paths) == list(plain.paths)
