"""FashionAI's raw form; its ASEN files are those of DARN."""

import json
from pathlib import Path

import pytest

from training.datasets import asen as fashionai
from training.errors import DataError


def write(root: Path, text: str, folder: str = ".") -> Path:
    annotations = root / folder / "Annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    (annotations / "label.csv").write_text(text)
    return root


def test_position_of_y_is_the_value_and_m_is_unknown(tmp_path: Path) -> None:
    write(
        tmp_path,
        "Images/a/1.jpg,neck_design_labels,nym\nImages/b/2.jpg,skirt_length_labels,yn\n",
        "part1",
    )
    write(
        tmp_path,
        "Images/a/3.jpg,neck_design_labels,nny\nImages/a/4.jpg,neck_design_labels,?\n",
        "part2",
    )
    dataset = fashionai.load_fashionai(tmp_path)
    # In the order of ASEN's files, so skirts come first.
    assert [(a.name, a.values) for a in dataset.schema.attributes] == [
        ("skirt_length", ("0", "1")),
        ("neck_design", ("0", "1", "2")),
    ]
    assert list(dataset.paths) == [
        "part1/Images/a/1.jpg",
        "part1/Images/b/2.jpg",
        "part2/Images/a/3.jpg",
        "part2/Images/a/4.jpg",
    ]
    assert dataset.labels.tolist() == [
        [0, 0, -1, 1, 0],
        [1, -1, 0, 0, 0],
        [0, 0, -1, -1, 1],
        [0, 0, 0, 0, 0],
    ]
    assert "cut 8:1:1" in dataset.notes[0]


def test_label_file_in_the_folder_itself(tmp_path: Path) -> None:
    rows = "".join(
        f"Images/{n}.jpg,coat_length_labels,{'ynn' if n % 2 else 'nny'}\n" for n in range(50)
    )
    dataset = fashionai.load_fashionai(write(tmp_path, rows))
    assert dataset.paths[7] == "Images/7.jpg"
    assert [int((dataset.splits == s).sum()) for s in ("train", "valid", "test")] == [40, 5, 5]


def test_an_image_listed_under_several_attributes_is_in_one_split(tmp_path: Path) -> None:
    rows = [
        f"Images/{n}.jpg,{attribute}_labels,{'yn' if n % 2 else 'ny'}\n"
        for attribute in ("coat_length", "neck_design")
        for n in range(50)
    ]
    dataset = fashionai.load_fashionai(write(tmp_path, "".join(rows)))
    assert dataset.splits[:50].tolist() == dataset.splits[50:].tolist()
    assert [int((dataset.splits == s).sum()) for s in ("train", "valid", "test")] == [80, 10, 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg,x_labels\n", r"label.csv, line 1: expected 'path,attribute_labels"),
        ("a.jpg,x_labels,nyy\n", r"line 1: .*one y"),
        ("a.jpg,x_labels,nyx\n", r"line 1: .*found 'a.jpg,x_labels,nyx'"),
        ("a.jpg,x_labels,ny\nb.jpg,x_labels,nny\n", r"line 2: expected 2 letters as above"),
        ("../a.jpg,x_labels,ny\n", r"line 1: '../a.jpg' is not a path inside"),
    ],
)
def test_malformed_lines_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fashionai.load_fashionai(write(tmp_path, text))


def test_asen_files_come_first_and_absence_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no label file of FashionAI; expected files: .*Tianchi"):
        fashionai.load_fashionai(tmp_path)
    meta = {"FashionAI": {"ATTRIBUTES": ["neck"], "ATTRIBUTES_NUM": {"neck": 2}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "filenames_valid.txt").write_text("a.jpg\nb.jpg\n")
    (tmp_path / "query_valid.txt").write_text("1 0 1\n")
    (tmp_path / "candidate_valid.txt").write_text("0 0 1\n")
    (tmp_path / "label_train.txt").write_text("0 0 1\n")
    dataset = fashionai.load_fashionai(tmp_path)
    assert dataset.labels.tolist() == [[-1, 1], [-1, 1]]
    assert "label_train.txt is there but cannot be used" in dataset.notes[0]
