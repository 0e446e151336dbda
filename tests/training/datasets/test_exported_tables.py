"""Tables as they are exported: whatever the form, the same pictures and labels."""

import json
import unicodedata
from pathlib import Path

import polars
import pytest

from training.datasets import load_dataset
from training.datasets.columns import Told
from training.datasets.dataset import Dataset
from training.errors import DataError, UsageError

ROWS = [["1.jpg", "grün", "train"], ["2.jpg", "rot", "train"], ["sub/3.jpg", "", "test"]]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    (root / "images" / "sub").mkdir(parents=True)
    for path, *_ in ROWS:
        (root / "images" / path).touch()
    return root


def told_of(dataset: Dataset) -> list[tuple[str, list[str], str]]:
    """Path, colours and split of each row."""
    own = dataset.schema.slice_of(dataset.schema.attribute("colour"))
    values = dataset.schema.attributes[dataset.schema.attribute("colour")].values
    return [
        (path, [v for v, s in zip(values, states[own], strict=True) if s == 1], split)
        for path, states, split in zip(
            dataset.paths, dataset.labels, dataset.splits.tolist(), strict=True
        )
    ]


EXPECTED = [(f"images/{p}", [c] if c else [], s) for p, c, s in ROWS]


def text(separator: str, header: str = "image{0}colour{0}split", end: str = "\n") -> str:
    lines = [header.format(separator)] + [separator.join(["images/" + r[0], *r[1:]]) for r in ROWS]
    return end.join(lines) + end


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("labels.csv", text(",").encode(), ""),
        ("labels.csv", text(";", end="\r\n").encode("cp1252"), "semicolons, text in Windows-1252"),
        ("labels.csv", ("sep=;\r\n" + text(";")).encode("utf-8-sig"), "parted by semicolons"),
        ("Labels.TSV", text("\t").encode("utf-16"), "parted by tabs, text in UTF-16"),
        ("export.csv", text("\t").encode("utf-16-be"), "parted by tabs, text in UTF-16-BE"),
        ("labels.txt", text("|").encode(), "parted by bars"),
        ("metadata.csv", text(",", "file_name{0}colour{0}split").encode(), ""),
        ("labels.csv", text(",", "Filepath{0}colour{0}Subset").encode(), ""),
        ("labels.csv", text(",", "foto{0}colour{0}split").encode(), "column 'foto' (guessed"),
    ],
)
def test_one_table_in_many_forms(shop: Path, name: str, content: bytes, said: str) -> None:
    (shop / name).write_bytes(content)
    dataset = load_dataset(str(shop))
    assert told_of(dataset) == EXPECTED
    assert said in " ".join(dataset.notes)
    assert ("guessed" in " ".join(dataset.notes)) == bool(said)


def test_typed_tables(shop: Path, tmp_path: Path) -> None:
    rows = [{"file_name": f"images/{p}", "colour": c or None, "split": s} for p, c, s in ROWS]
    (shop / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert told_of(load_dataset(str(shop))) == EXPECTED
    (shop / "metadata.jsonl").rename(shop / "away")
    (shop / "labels.json").write_text(json.dumps(rows))
    assert told_of(load_dataset(str(shop))) == EXPECTED
    (shop / "labels.json").unlink()
    several = [[row["colour"], "lila"] if row["colour"] else None for row in rows]
    frame = polars.DataFrame(rows).with_columns(
        polars.Series("colour", several), hood=polars.Series([True, False, None])
    )
    frame.write_parquet(shop / "shop.parquet")
    dataset = load_dataset(str(shop))
    assert told_of(dataset) == [(p, sorted([*c, "lila"]) if c else [], s) for p, c, s in EXPECTED]
    assert [a.values for a in dataset.schema.attributes][1:] == [("no", "yes")]
    (shop / "shop.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a Parquet file"):
        load_dataset(str(shop))


def test_folders_of_classes_and_of_splits(tmp_path: Path) -> None:
    for path in ("train/dress/1.jpg", "train/coat/2.PNG", "validation/coat/3.jpg", "train/x.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    dataset = load_dataset(str(tmp_path))
    assert list(zip(dataset.paths, dataset.splits.tolist(), strict=True)) == [
        ("train/coat/2.PNG", "train"),
        ("train/dress/1.jpg", "train"),
        ("validation/coat/3.jpg", "valid"),
    ]
    assert dataset.category.tolist() == [0, 1, 0]
    assert dataset.category_names == ("coat", "dress")


def test_a_table_in_the_folder_of_each_split(tmp_path: Path) -> None:
    for split, rows in (("train", "1.jpg,red\n2.jpg,blue\n"), ("test", "1.jpg,red\n")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "metadata.csv").write_text("file_name,colour\n" + rows)
    assert told_of(load_dataset(str(tmp_path))) == [
        ("test/1.jpg", ["red"], "test"),
        ("train/1.jpg", ["red"], "train"),
        ("train/2.jpg", ["blue"], "train"),
    ]


@pytest.mark.parametrize(
    "begin",
    [
        "{root}/images/",
        "C:\\Users\\me\\shop\\images\\",
        ".//images/./",
        "shop/images/",
        "",
        "Images/",
    ],
)
def test_paths_as_people_write_them(shop: Path, begin: str) -> None:
    begin = begin.format(root=shop)
    rows = [f"{begin}{p.upper() if begin else p},{c},{s}\n" for p, c, s in ROWS]
    if "\\" in begin:
        rows = [row.replace("/", "\\") for row in rows]
    (shop / "labels.csv").write_text("image,colour,split\n" + "".join(rows))
    assert told_of(load_dataset(str(shop))) == EXPECTED


def test_letters_in_other_forms_are_the_same_file_and_value(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFC", "é.jpg")).touch()
    other = unicodedata.normalize("NFD", "é")
    wide = "".join(chr(ord(c) + 0xFEE0) for c in "RED")
    (tmp_path / "labels.csv").write_text(
        f"image,c,d\n{other}.jpg,caf{other},x\nb.jpg,café,y\nc.jpg,{wide},x\nd.jpg,red,y\n"
    )
    dataset = load_dataset(str(tmp_path))
    assert dataset.paths[0] == "é.jpg"
    assert dataset.labels[:, :2].argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert dataset.schema.slice_of(0) == slice(0, 2)


def test_cells_that_say_nothing_and_rows_without_a_picture(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "image,c,price\na,NaN,5\nb,n/a,\nc,null,N/A\nd,Unknown,2\ne,red|?,?\nf,blue,1\n,red,3\n"
    )
    dataset = load_dataset(str(tmp_path))
    assert dataset.labels.tolist() == [[0, 0]] * 4 + [[-1, 1], [1, -1]]
    assert dataset.payload == {"price": ["5", "", "", "2", "", "1"]}
    assert "rows without a picture, skipped: 1, first line 8" in dataset.notes
    assert "cells taken for unknown: 'NaN' 1, 'n/a' 1" in " ".join(dataset.notes)


def test_rows_of_one_picture_become_one(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "image,split,c,tags,title\na,train,x,p|q,A\nb,train,y,p,B\n./a,train,y,r,C\nb,test,Y,p,\n"
    )
    dataset = load_dataset(str(tmp_path))
    assert list(dataset.paths) == ["a", "b"]
    assert dataset.splits.tolist() == ["train", ""]
    assert dataset.labels.tolist() == [[0, 0, 1, 1, 1], [-1, 1, 1, -1, -1]]
    assert dataset.payload == {"title": ["A", "B"]}
    assert "'c': pictures whose rows contradict each other, unknown: 1" in " ".join(dataset.notes)


def test_headers_that_stand_twice(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,c,C,d,d\na,x,u,1a,1a\nb,y,v,2a,2a\n")
    dataset = load_dataset(str(tmp_path))
    assert [a.name for a in dataset.schema.attributes] == ["c", "C (column 3)", "d"]
    assert "column 'd' stands twice: one is dropped" in dataset.notes


def test_a_cell_of_a_page_in_a_skipped_column(tmp_path: Path) -> None:
    page = "word " * 100_000
    (tmp_path / "labels.csv").write_text(f'image,c,html\na,x,"{page}\n"\nb,y,\n')
    assert load_dataset(str(tmp_path)).payload == {"html": [page.strip(), ""]}
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("c\n")
    with pytest.raises(DataError, match=r"labels\.csv, line 5: 1 cells"):  # lines, not rows
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["19,99", "1.299,00", "5"], ["19.99", "1299.00", "5"]),
        (["€ 5,50", "7,00 €"], ["5.50", "7.00"]),
        (["1,299.00", "2.50"], ["1299.00", "2.50"]),
        (["1,299", "12"], ["1.299", "12"]),  # commas do not part these cells
        (["1,5", "2.5"], ["1,5", "2.5"]),  # nobody knows
        (["5 EUR", "5 USD"], ["5 EUR", "5 USD"]),
        (["12", "x,5"], ["12", "x,5"]),
    ],
)
def test_numbers_of_a_payload_column_can_be_compared(
    tmp_path: Path, cells: list[str], numbers: list[str]
) -> None:
    rows = "".join(f"{n}.jpg;{'xy'[n % 2]};{cell}\n" for n, cell in enumerate(cells))
    (tmp_path / "labels.csv").write_text("image;c;price\n" + rows)
    assert load_dataset(str(tmp_path)).payload["price"] == numbers


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["Training", "dev", "holdout", ""], ["train", "valid", "test", ""]),
        (["train", "valid", "dev", "2026 Q1"], ["train", "valid", "dev", "2026 Q1"]),
    ],
)
def test_splits_by_other_names(tmp_path: Path, given: list[str], meant: list[str]) -> None:
    rows = "".join(f"{n}.jpg,{'xy'[n % 2]},{split}\n" for n, split in enumerate(given))
    (tmp_path / "labels.csv").write_text("image,c,split\n" + rows)
    dataset = load_dataset(str(tmp_path))
    assert dataset.splits.tolist() == meant
    assert dataset.split_called("dev") == meant[given.index("dev")]


def test_what_is_told_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(
        "image;c;back;usage\na;\xe9;b;train\nb;x;c;dev\n".encode("mac_roman")
    )
    told = Told(image="back", split="usage", separator=";", encoding="mac_roman")
    dataset = load_dataset(str(tmp_path), attributes=["c"], told=told)
    assert list(dataset.paths) == ["b", "c"]
    assert dataset.schema.attributes[0].values == ("x", "é")
    assert dataset.splits.tolist() == ["train", "valid"]
    for wrong in (Told(encoding="klingon"), Told(separator=";;"), Told(text=("no",))):
        with pytest.raises(UsageError):
            load_dataset(str(tmp_path), told=wrong)
