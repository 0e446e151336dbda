"""DARN in ASEN's files: hand-written files, arrays spelled out, malformed lines."""

import json
from pathlib import Path

import pytest

from training.datasets import asen as darn
from training.errors import DataError

META = {
    "ATTRIBUTES": ["clothes category", "collar shape"],
    "ATTRIBUTES_NUM": {"clothes category": 3, "collar shape": 2},
}
FILES = {
    "meta.json": json.dumps({"DARN": META}),
    "filenames_train.txt": "pic/10/1_2_1.jpg\npic/10/1_2_2.jpg\npic/20/1_2_1.jpg",
    "label_train.txt": "0 0 0 1 1\n1 0 0\n2 1 0 0 2\n",
    "filenames_test.txt": "pic/10/3_4_1.jpg\r\npic/20/5_6_1.jpg\r\npic/20/5_6_2.jpg\r\n",
    "query_test.txt": "2 1 0\n",
    "candidate_test.txt": "0 1 0\n1 0 2\n",
}


def write(root: Path, **changes: str | None) -> Path:
    folder = root / "DARN"
    folder.mkdir(exist_ok=True)
    for name, text in (FILES | changes).items():
        if text is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(text.encode())
    return folder


def test_everything_is_read(tmp_path: Path) -> None:
    dataset = darn.load_darn(write(tmp_path))
    assert dataset.name == "darn"
    assert dataset.splits.tolist() == ["train"] * 3 + ["test"] * 3
    assert dataset.paths[3] == "pic/10/3_4_1.jpg"
    assert dataset.labels.tolist() == [
        [1, -1, -1, -1, 1],
        [1, -1, -1, 0, 0],
        [-1, -1, 1, 1, -1],
        [0, 0, 0, 1, -1],
        [-1, -1, 1, 0, 0],
        [0, 0, 0, 1, -1],
    ]
    assert dataset.category.tolist() == [0, 0, 2, -1, 2, -1]
    assert dataset.schema.value_names[3:] == ("collar-shape:0", "collar-shape:1")
    assert dataset.items is not None
    assert dataset.items.tolist() == [0, 0, 2, 1, 3, 3]
    assert list(dataset.protocols) == ["test"]
    queries, candidates = dataset.protocols["test"].queries, dataset.protocols["test"].candidates
    assert [a.tolist() for a in (queries.rows, queries.attributes, queries.values)] == [
        [5],
        [1],
        [0],
    ]
    assert [a.tolist() for a in (candidates.rows, candidates.attributes, candidates.values)] == [
        [3, 4],
        [1, 0],
        [0, 2],
    ]
    assert dataset.notes == ("no filenames_valid.txt: split 'valid' is left out",)


def test_item_grouped_split_drops_the_published_lists(tmp_path: Path) -> None:
    paths = "\n".join(f"pic/9/{n // 4}_1_{n % 4}.jpg" for n in range(400))
    labels = "\n".join(f"{n} 1 {n % 2}" for n in range(400))
    folder = write(tmp_path, **{"filenames_train.txt": paths, "label_train.txt": labels})
    dataset = darn.load_darn(folder, item_grouped=True)
    assert dataset.items is not None
    for item in set(dataset.items.tolist()):
        assert len(set(dataset.splits[dataset.items == item])) == 1
    assert abs(int((dataset.splits == "test").sum()) - 40) <= 4
    assert dataset.protocols == {}
    assert "published lists do not apply" in dataset.notes[-1]


def test_names_file_names_the_values(tmp_path: Path) -> None:
    names = {"Collar_Shape": ["v-neck", "round"]}
    dataset = darn.load_darn(write(tmp_path, **{"names.json": json.dumps(names)}))
    assert dataset.schema.value_names[3:] == ("v-neck", "round")
    for wrong, message in (
        ({"collar shape": ["v"]}, "'collar shape' has 2 values, 1 names are given"),
        ({"sleeve": ["v"]}, "names sleeve; the attributes are clothes category, collar shape"),
        (["v"], "not of the form"),
    ):
        with pytest.raises(DataError, match=message):
            darn.load_darn(write(tmp_path, **{"names.json": json.dumps(wrong)}))


def test_meta_lies_beside_the_folder_or_is_flat(tmp_path: Path) -> None:
    folder = write(tmp_path, **{"meta.json": json.dumps(META)})
    assert darn.load_darn(folder).schema.size == 5
    write(tmp_path, **{"meta.json": None})
    with pytest.raises(DataError, match=r"meta.json is missing .* expected files: meta.json"):
        darn.load_darn(folder)
    (tmp_path / "meta.json").write_text(json.dumps({"darn": META}))
    assert darn.load_darn(folder).schema.size == 5


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("query_test.txt", "2 1 0\n1 1\n", r"query_test.txt, line 2: .* found '1 1'"),
        ("query_test.txt", "2 1 x\n", r"query_test.txt, line 1: .* whole numbers, found '2 1 x'"),
        ("query_test.txt", "3 1 0\n", r"line 1: expected an index below 3"),
        ("query_test.txt", "-1 1 0\n", r"line 1: expected an index below 3"),
        ("query_test.txt", "0 2 0\n", r"line 1: expected an attribute from 0 to 1, found"),
        ("query_test.txt", "0 0 1\n0 1 2\n", r"line 2: expected attribute 1 to .* below 2, found"),
        ("query_test.txt", "0 -1 0\n", r"line 1: expected an attribute from 0 to 1"),
        ("query_test.txt", f"0 0 {10**30}\n", r"line 1: .* below 3, found '0 0 1000"),
        ("label_train.txt", "0 0 0 1\n", r"label_train.txt, line 1"),
        ("filenames_test.txt", "a.jpg\n../b.jpg\n", r"filenames_test.txt, line 2: '../b.jpg'"),
        ("meta.json", "{", r"meta.json does not have the form"),
        ("meta.json", "[]", r"meta.json does not have the form"),
        ("meta.json", "[" * 100_000, r"meta.json does not have the form"),
        (
            "meta.json",
            json.dumps(META).replace("3", "Infinity"),
            r"meta.json does not have the form",
        ),
        ("names.json", "[" * 100_000, r"names.json is not of the form"),
        ("meta.json", '{"FashionAI": {}}', r"meta.json does not have the form"),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, file: str, text: str, message: str) -> None:
    folder = write(tmp_path, **{file: text})
    with pytest.raises(DataError, match=message):
        darn.load_darn(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, **{"candidate_test.txt": None})
    with pytest.raises(DataError, match=r"candidate_test.txt is missing; .* come in pairs"):
        darn.load_darn(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"lists no images .* expected files: meta.json .*ASEN"):
        darn.load_darn(empty)
    (empty / "filenames_test.txt").write_text("a.jpg\n")
    (empty / "meta.json").write_text(json.dumps(META))
    with pytest.raises(DataError, match="images but no label files"):
        darn.load_darn(empty)


def test_a_byte_order_mark_is_no_part_of_any_file(tmp_path: Path) -> None:
    names = json.dumps({"Collar_Shape": ["v-neck", "round"]})
    files = FILES | {"names.json": names}
    folder = write(tmp_path, **{name: "\ufeff" + text for name, text in files.items()})
    dataset = darn.load_darn(folder)
    assert dataset.schema.value_names[3:] == ("v-neck", "round")
    assert dataset.paths[0] == "pic/10/1_2_1.jpg"
