"""Counts of `retrieve inspect` against loops, and the command itself."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval.cli import _run
from retrieval.commands.inspect import (
    BrokenImage,
    broken_images,
    count_attributes,
    inspect_dataset,
)
from training.datasets import load_dataset

LABELS = """image,split,colour,neck
a.png,train,red|blue,v
b.png,train,blue,
c.png,test,,round
d.png,,red,v
gone.png,test,red,[odd]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "labels.csv").write_text(LABELS)
    for name in "abc":
        Image.new("RGB", (8, 8), (200, 10, 10)).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes(b"not an image")
    return tmp_path


def test_counts_equal_loops(folder: Path) -> None:
    dataset = load_dataset(str(folder))
    rng = np.random.default_rng(0)
    dataset.labels[:] = rng.integers(-1, 2, dataset.labels.shape)
    counts = count_attributes(dataset)
    rows = {"train": [0, 1], "valid": [], "test": [2, 4], "unassigned": [3], "all": range(5)}
    for number, attribute in enumerate(counts):
        where = dataset.schema.slice_of(number)
        for key, members in rows.items():
            labelled = sum(any(s == 1 for s in dataset.labels[r, where]) for r in members)
            assert attribute.labelled[key] == labelled
            for place, value in enumerate(attribute.values):
                flat = where.start + place
                assert value.images[key] == sum(dataset.labels[r, flat] == 1 for r in members)


def test_missing_and_broken_images_are_told(folder: Path) -> None:
    dataset = load_dataset(str(folder))
    found = inspect_dataset(dataset)
    assert found.missing == ["gone.png"]
    assert found.broken is None
    steps: list[int] = []
    broken = broken_images(dataset, {"gone.png"}, steps.append)
    assert [b.path for b in broken] == ["d.png"]
    assert broken[0].reason.startswith("not an image of a known format")
    assert len(steps) == 5


def test_an_image_that_does_not_fit_into_memory_does_not_end_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_picture(path: Path, draft: int) -> None:
        if path.name == "b.png":
            raise MemoryError

    monkeypatch.setattr("training.images.read.open_picture", open_picture)
    steps: list[int] = []
    broken = broken_images(load_dataset(str(folder)), {"gone.png"}, steps.append)
    assert broken == [BrokenImage("b.png", "out of memory while decoding")]
    assert len(steps) == 5


def test_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"image,c\n{'x' * 5000}.jpg,red\n")
    assert len(inspect_dataset(load_dataset(str(tmp_path))).missing) == 1


def test_what_several_splits_share_is_noted(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "image,split,item,c\na,train,1,x\nb,train,2,x\nb,test,2,y\nc,test,,x\nd,,3,x\n"
        "e,train,4,y\nf,valid,4,y\ng,train,3,x\nc,test,,x\n"
    )
    assert inspect_dataset(load_dataset(str(tmp_path))).notes == [
        "rows of a picture that an earlier row names: 2, first 'b'",
        "'split': pictures whose rows contradict each other, unknown: 1, first on line 3",
        "'c': pictures whose rows contradict each other, unknown: 1, first on line 3",
        "items in more than one split: 1, first of 'e'",
    ]


def test_what_one_cut_keeps_together_is_not_noted(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{n // 3},{'xy'[n % 2]}\n" for n in range(60))
    (tmp_path / "labels.csv").write_text("image,item,c\n" + rows)
    (note,) = inspect_dataset(load_dataset(str(tmp_path))).notes
    assert note.startswith("no split column: cut 8:1:1 by item")


def test_columns_that_are_no_attributes_are_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "labels.csv").write_text("image,c,price,sku\na.jpg,x,1,s-1\nb.jpg,y,,s-2\n")
    assert inspect_dataset(load_dataset(str(tmp_path))).payload == ["price", "sku"]
    assert _run(["inspect", "--dataset", str(tmp_path)], False) == 0
    assert "columns price, sku" in capsys.readouterr().out


def test_json_keys_are_stable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["inspect", "--dataset", str(folder), "--images", "--json"], False) == 0
    data = json.loads(capsys.readouterr().out)
    assert list(data) == [
        "dataset",
        "root",
        "images",
        "values",
        "attributes",
        "categories",
        "items",
        "boxes",
        "landmarks",
        "payload",
        "protocols",
        "notes",
        "columns",
        "missing",
        "broken",
        "suspicious",
    ]
    assert data["images"] == {"train": 2, "valid": 0, "test": 2, "unassigned": 1, "all": 5}
    colour = data["attributes"][0]
    assert list(colour) == ["name", "multi", "labelled", "values"]
    assert colour["values"][1] == {
        "name": "red",
        "images": {"train": 1, "valid": 0, "test": 1, "unassigned": 1, "all": 3},
    }
    assert data["missing"] == ["gone.png"]
    assert [b["path"] for b in data["broken"]] == ["d.png"]


def test_table_shows_values_splits_and_unusable_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["inspect", "--dataset", str(folder), "--attributes", "neck,colour", "--images"]
    assert _run(arguments, False) == 0
    out = capsys.readouterr().out
    for text in ("neck", "colour (multi)", "[odd]", "unassigned", "missing images: 1", "gone.png"):
        assert text in out
    assert "broken images: 1" in out
    out = out[out.index("images and labels by split") :]
    assert out.index("neck") < out.index("colour")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--dataset", "drn"], 2, "nearest: darn"),
        (["--dataset", "darn", "--root", "nowhere"], 3, "nowhere is not a folder"),
        (["--dataset", ".", "--attributes", "size"], 2, "no attribute column 'size'"),
        (["--dataset", ".", "--attributes", ","], 2, "holds an empty name"),
        ([], 2, "Missing option '--dataset'"),
    ],
)
def test_errors_have_codes_and_messages(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    assert _run(["inspect", *arguments], False) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
