"""The catalogue adapter on hand-written files, with the arrays spelled out."""

from pathlib import Path

import numpy as np
import pytest

from training.datasets import catalogue
from training.errors import DataError, UsageError


def write(root: Path, text: str, encoding: str = "utf-8") -> Path:
    (root / "labels.csv").write_bytes(text.encode(encoding))
    return root


def test_labels_splits_category_and_items_are_read(tmp_path: Path) -> None:
    text = (
        "image,split,item,category,colour,name\n"
        "a.jpg,train,7,shirt,red|blue,A fine shirt\n"
        "b.jpg,val,7,dress,,Other\n"
        'sub/c d.jpg,Test,9,,blue,"Comma, quoted"\n'
        "\n"
        "e.jpg,,,shirt,green,\n"
    )
    dataset = catalogue.load(write(tmp_path, text, "utf-8-sig"))
    names = [(a.name, a.values, a.multi) for a in dataset.schema.attributes]
    assert names == [
        ("category", ("dress", "shirt"), False),
        ("colour", ("blue", "green", "red"), True),
    ]
    assert list(dataset.paths) == ["a.jpg", "b.jpg", "sub/c d.jpg", "e.jpg"]
    assert dataset.labels.tolist() == [
        [-1, 1, 1, -1, 1],
        [1, -1, 0, 0, 0],
        [0, 0, 1, -1, -1],
        [-1, 1, -1, 1, -1],
    ]
    assert dataset.category.tolist() == [1, 0, -1, 1]
    assert dataset.category_names == ("dress", "shirt")
    assert dataset.splits.tolist() == ["train", "valid", "test", ""]
    assert dataset.items is not None
    assert dataset.items.tolist() == [0, 0, 1, 2]
    assert dataset.notes == (
        "column 'name' is no attribute: text by its name",
        "values without a picture in train, which no training can teach: dress, green",
    )


def test_columns_that_are_no_attributes_are_payload(tmp_path: Path) -> None:
    text = "image,sku,colour,split,price,item,,fit\na,1,red,train,5,x,?,slim\nb,2,blue,test,,y,,\n"
    dataset = catalogue.load(write(tmp_path, text))
    assert [a.name for a in dataset.schema.attributes] == ["colour"]
    payload = {"sku": ["1", "2"], "price": ["5", ""], "fit": ["slim", ""]}
    assert dataset.payload == payload
    assert catalogue.load(tmp_path, ["colour"]).payload == payload
    told = catalogue.load(tmp_path, ["fit"])
    assert told.payload == {"sku": ["1", "2"], "price": ["5", ""], "colour": ["red", "blue"]}
    assert dataset.subset(np.array([1])).payload == {"sku": ["2"], "price": [""], "fit": [""]}


@pytest.mark.parametrize("header", ["path", "File", "filename"])
def test_image_column_has_other_names(tmp_path: Path, header: str) -> None:
    dataset = catalogue.load(write(tmp_path, f"colour,{header}\nred,x.jpg\nblue,y.jpg\n"))
    assert list(dataset.paths) == ["x.jpg", "y.jpg"]
    assert [a.name for a in dataset.schema.attributes] == ["colour"]


def test_spellings_of_one_value_are_one_value(tmp_path: Path) -> None:
    text = "image,neck\na,V-Neck\nb,v neck\nc,v neck\nd,round\ne,-\nf,|\n"
    dataset = catalogue.load(write(tmp_path, text))
    assert dataset.schema.attributes[0].values == ("round", "v neck")
    assert dataset.labels[:, 1].tolist() == [1, 1, 1, -1, 0, 0]


def test_columns_with_as_many_values_as_rows_are_text_unless_asked_for(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,code{n},{'ab'[n % 2]},\n" for n in range(120))
    root = write(tmp_path, "image,code,kind,blank\n" + rows)
    dataset = catalogue.load(root)
    assert [a.name for a in dataset.schema.attributes] == ["kind"]
    assert dataset.notes[:2] == (
        "column 'code' is no attribute: 120 different values in 120 rows look like text",
        "column 'blank' is no attribute: every cell is empty",
    )
    asked = catalogue.load(root, ["kind", "CODE"])
    assert [a.name for a in asked.schema.attributes] == ["kind", "code"]
    with pytest.raises(UsageError, match="no attribute column 'colour'; it has code, kind"):
        catalogue.load(root, ["colour"])
    with pytest.raises(DataError, match="'blank' has no values"):
        catalogue.load(root, ["blank"])


def test_without_split_column_items_do_not_straddle(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,item{n // 3},{'ab'[n % 2]}\n" for n in range(300))
    dataset = catalogue.load(write(tmp_path, "image,item,kind\n" + rows))
    assert dataset.items is not None
    for item in range(100):
        assert len(set(dataset.splits[dataset.items == item])) == 1
    assert [int((dataset.splits == s).sum()) for s in ("train", "valid", "test")] == [240, 30, 30]
    again = catalogue.load(tmp_path)
    assert again.splits.tolist() == dataset.splits.tolist()
    assert "cut 8:1:1 by item" in dataset.notes[-1]


def test_splits_of_any_name_and_items_by_any_column(tmp_path):
    text = "image,split,c,title\na.jpg,Winter 26,x,Shirt\nb.jpg,VAL,y,shirt\nc.jpg,,x,Cap\n"
    (tmp_path / "labels.csv").write_text(text)
    dataset = catalogue.load(tmp_path, item_column="Title")
    assert dataset.splits.tolist() == ["Winter 26", "valid", ""]
    assert dataset.rows_of("Winter 26").tolist() == [0]
    assert dataset.items is not None
    assert dataset.items.tolist() == [0, 0, 1]
    assert [a.name for a in dataset.schema.attributes] == ["c"]
    with pytest.raises(UsageError, match="no column 'sku' for --item-column; it has image"):
        catalogue.load(tmp_path, item_column="sku")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,colour\na.jpg,red\nb.jpg\n", r"labels.csv, line 3: 1 cells .* has 2: 'b.jpg'"),
        ("image,split,c\na.jpg,all,x\n", r"labels.csv, line 2: 'all' is no name of a split"),
        ("image,c\n../a.jpg,x\n", r"line 2: '../a.jpg' is not a path inside"),
        ("image,c\n/etc/passwd,x\n", r"line 2: '/etc/passwd' is not a path inside"),
        ("image,c\n,x\n", "no row names a picture"),
        ("place,c\na,x\n", r"no column called image.*columns are place, c"),
        ("image,split\na.jpg,train\n", "no attribute column"),
        ("image,c\n", "lists no images"),
        ("", "lists no images"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        catalogue.load(write(tmp_path, text))


def test_missing_and_undecodable_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels.csv is missing; expected files: labels.csv"):
        catalogue.load(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"image,c\na.jpg,caf\x81\n")
    with pytest.raises(DataError, match=r"labels\.csv is not text: .*name its --encoding"):
        catalogue.load(tmp_path)


def test_states_equal_a_loop_over_the_cells(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cells = [
        ["|".join(sorted({f"v{c}{d}" for d in rng.integers(0, 6, rng.integers(0, 3))}))]
        for c in (0, 1)
        for _ in range(40)
    ]
    columns = [cells[:40], cells[40:]]
    text = "image,first,second\n" + "".join(
        f"{r}.jpg,{columns[0][r][0]},{columns[1][r][0]}\n" for r in range(40)
    )
    dataset = catalogue.load(write(tmp_path, text))
    for row in range(40):
        for number, attribute in enumerate(dataset.schema.attributes):
            known = [v for v in columns[number][row][0].split("|") if v]
            for value in attribute.values:
                flat = dataset.schema.value(f"{attribute.name}:{value}")
                expected = 0 if not known else (1 if value in known else -1)
                assert dataset.labels[row, flat] == expected


def test_a_row_of_several_categories_is_of_none_and_noted(tmp_path: Path) -> None:
    text = "image,split,category\na,train,dress\nb,train,dress|shirt\nc,test,shirt\nd,test,\n"
    dataset = catalogue.load(write(tmp_path, text))
    assert dataset.category.tolist() == [0, -1, 1, -1]
    assert dataset.category_names == ("dress", "shirt")
    (note,) = dataset.notes
    assert note.endswith("whose category counts as unknown: 1, first 'b'")


def test_where_every_row_has_several_categories_there_are_none(tmp_path: Path) -> None:
    dataset = catalogue.load(write(tmp_path, "image,split,category\na,train,x|y\nb,test,x|y\n"))
    assert dataset.category.tolist() == [-1, -1]
    assert dataset.category_names == ()


def test_blank_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    dataset = catalogue.load(write(tmp_path, "\n ,\nimage,c\n\na.jpg,x\n", "utf-8-sig"))
    assert list(dataset.paths) == ["a.jpg"]
    assert dataset.schema.attributes[0].name == "c"
