"""What a column is taken for: by its values per item and their form, or as told."""

from pathlib import Path

import pytest

from training.datasets import load_dataset
from training.datasets.columns import Told
from training.datasets.dataset import Dataset
from training.schema import Attribute, Schema

COLOURS = ("red", "blue", "green")


def shop(root: Path, **columns: list[object]) -> Path:
    """A table of two pictures each of 300 products."""
    header = ["image", "item", "colour", *columns]
    rows = [
        [
            f"{n}.jpg",
            n // 2,
            COLOURS[n // 2 % 3],
            *(cells[n % len(cells)] for cells in columns.values()),
        ]
        for n in range(600)
    ]
    (root / "labels.csv").write_text(
        "\n".join(";".join(map(str, row)) for row in [header, *rows]) + "\n"
    )
    return root


def attributes(dataset: Dataset) -> list[str]:
    return [a.name for a in dataset.schema.attributes]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([f"A dress called no. {n // 2}" for n in range(600)], "sentences"),
        ([f"S-{n // 2}" for n in range(600)], "300 different values in 300 items look like text"),
        ([f"{5 + n // 2 % 40},99" for n in range(600)], "numbers"),
        ([f"{n // 2 % 28 + 1}.02.2026" for n in range(600)], "dates"),
        ([2000 + n // 2 % 20 for n in range(600)], "dates"),
        ([f"https://shop/{n // 4}" for n in range(600)], "web addresses"),
        ([n // 2 % 90 for n in range(600)], "90 different numbers"),
        (["ACME"], "every picture has 'ACME', or nothing"),
        (["", "n/a"], "every cell is empty"),
    ],
)
def test_columns_that_are_no_labels(tmp_path: Path, cells: list[object], reason: str) -> None:
    dataset = load_dataset(str(shop(tmp_path, own=cells)))
    assert attributes(dataset) == ["colour"]
    assert f"column 'own' is no attribute: {reason}" in dataset.notes
    assert [(c.name, c.role) for c in dataset.columns] == [
        ("image", "picture"),
        ("item", "item"),
        ("colour", "attribute"),
        ("own", "payload"),
    ]


@pytest.mark.parametrize(
    "cells",
    [
        ["yes", "no"],
        [f"size {n}" for n in range(34, 48)],
        [f"a{n}|b{n % 7}" for n in range(60)],  # many tags, each on many products
        ["", "", "round", "v-neck"],
        [0, 1, 2],
    ],
)
def test_columns_that_are_labels(tmp_path: Path, cells: list[object]) -> None:
    assert attributes(load_dataset(str(shop(tmp_path, own=cells)))) == ["colour", "own"]


def test_what_is_told_overrules(tmp_path: Path) -> None:
    root = str(shop(tmp_path, brand=["ACME"], kind=["a", "b"]))
    assert attributes(load_dataset(root, attributes=["brand"])) == ["brand"]
    dataset = load_dataset(root, told=Told(payload=("kind",), text=("Colour",)))
    assert attributes(dataset) == ["brand"]  # of one value, but there is no other
    assert [c.role for c in dataset.columns] == ["picture", "item", "text", "attribute", "payload"]


def test_what_a_model_knows_stays_an_attribute_and_the_rest_is_kept(tmp_path: Path) -> None:
    root = str(shop(tmp_path, brand=["ACME"], kind=["a", "b"]))
    known = Schema((Attribute("Brand", ("ACME", "other")), Attribute("sleeve", ("x", "y"))))
    dataset = load_dataset(root, schema=known)
    assert attributes(dataset) == ["brand"]
    assert set(dataset.payload) == {"colour", "kind"}
    assert "column 'kind' is no attribute: the model does not know it" in dataset.notes


def test_an_item_column_of_kinds_is_an_attribute_and_cuts_nothing(tmp_path: Path) -> None:
    rows = "".join(
        f"{n}.jpg,{('dress', 'coat', 'hat')[n % 3]},{COLOURS[n % 3]}\n" for n in range(90)
    )
    (tmp_path / "labels.csv").write_text("image,item,colour\n" + rows)
    dataset = load_dataset(str(tmp_path))
    assert dataset.items is None
    assert attributes(dataset) == ["item", "colour"]
    assert {dataset.labels[row].argmax() for row in dataset.rows_of("train")} == {0, 1, 2}
    assert "holds 3 kinds of garments in 90 rows" in " ".join(dataset.notes)
    told = load_dataset(str(tmp_path), item_column="item")
    assert told.items is not None
    assert len(set(told.items.tolist())) == 3


def test_items_by_another_name(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,P{n // 2},{COLOURS[n // 2 % 3]}\n" for n in range(60))
    (tmp_path / "labels.csv").write_text("image,Product_ID,colour\n" + rows)
    dataset = load_dataset(str(tmp_path))
    assert dataset.items is not None
    assert dataset.items.tolist() == [n // 2 for n in range(60)]
    assert "those of one 'Product_ID' (guessed; set with --item-column)" in " ".join(dataset.notes)
