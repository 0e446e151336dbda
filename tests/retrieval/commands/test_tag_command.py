"""`retrieve tag`: fills what is empty and nothing else, in the catalogue's own form."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_index import Shop, run

import retrieval.tags
from retrieval.commands.tag import resumed
from retrieval.tags import beside_labels, company
from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.images.batches import Reading
from training.maps import bank_from_images


@pytest.fixture(autouse=True)
def _work_there(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(path: Path, **how: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as handle:
        return list(csv.DictReader(handle, **how))


def slow_tags(shop: Shop) -> Iterator[tuple[str, str, str, float]]:
    """Path, attribute, values and chance of every readable picture, by torch, value by value, with
    what is known of other attributes."""
    loaded, dataset = load_checkpoint(shop.run), load_dataset(str(shop.catalogue))
    assert loaded.schema == dataset.schema
    rows = dataset.rows_of("all")
    bank, _ = bank_from_images(loaded.model, dataset, rows, Reading(loaded.preprocessing))
    lift = company(loaded.schema, dataset.labels)
    beside = beside_labels(loaded.schema, lift, bank.dataset.labels, bank.chances)
    for path, chances in zip(bank.dataset.paths, beside, strict=True):
        for number, attribute in enumerate(loaded.schema.attributes):
            own = dict(zip(attribute.values, chances[loaded.schema.slice_of(number)], strict=True))
            taken = [v for v, chance in own.items() if attribute.multi and chance >= 0.5]
            taken = taken or [max(own, key=own.__getitem__)]
            yield path, attribute.name, "|".join(taken), min(own[v] for v in taken)


def test_sets_hold_what_is_likely_enough(capsys, shop: Shop) -> None:
    code, _, err = run(capsys, "tag", shop.catalogue, "--checkpoint", shop.run, "--coverage", 0.8)
    assert code == 0, err
    loaded, dataset = load_checkpoint(shop.run), load_dataset(str(shop.catalogue))
    rows = dataset.rows_of("all")
    bank, _ = bank_from_images(loaded.model, dataset, rows, Reading(loaded.preprocessing))
    own = dict(zip(bank.dataset.paths, bank.chances, strict=True))
    sizes = []
    for row in read(Path("shop-tagged.csv")):
        for number, attribute in enumerate(loaded.schema.attributes):
            if row[f"{attribute.name}_chance"]:
                chances = own[row["image"]][loaded.schema.slice_of(number)]
                least = loaded.training["true_chances"][attribute.name][20]
                kept = {v for v, c in zip(attribute.values, chances, strict=True) if c >= least}
                found = set(row[f"{attribute.name}_set"].split("|")) - {""}
                near = {
                    v
                    for v, c in zip(attribute.values, chances, strict=True)
                    if abs(c - least) < 1e-3
                }
                assert found ^ kept <= near
                sizes.append(len(found))
    assert len(set(sizes)) > 1
    # On the images that it was measured on, what is true is in as many sets as was asked for.
    valid = dataset.rows_of("valid")
    bank, _ = bank_from_images(loaded.model, dataset, valid, Reading(loaded.preprocessing))
    for number, attribute in enumerate(loaded.schema.attributes):
        values = loaded.schema.slice_of(number)
        true = bank.chances[:, values][bank.dataset.labels[:, values] == 1]
        least = loaded.training["true_chances"][attribute.name][20]
        assert 0.8 - 1e-9 <= (true >= least - 1e-4).mean() <= 0.8 + 1.5 / len(true) + 0.01


def test_only_empty_cells_are_filled_by_the_models_own_chances(capsys, shop: Shop) -> None:
    confidence = 0.7
    options = ("--checkpoint", shop.run, "--confidence", confidence, "--sheet", "unsure.png")
    code, text, err = run(capsys, "tag", shop.catalogue, *options, "--json")
    assert code == 0, err
    assert Path("unsure.png").is_file()
    assert not list(Path().glob(".*partial"))
    before, after = shop.rows(), read(Path("shop-tagged.csv"))
    right = {(path, name): (values, p) for path, name, values, p in slow_tags(shop)}
    names = [attribute.name for attribute in load_checkpoint(shop.run).schema.attributes]
    header = []
    for column in before[0]:
        header += [column, f"{column}_chance"] if column in names else [column]
    assert list(after[0]) == header
    counts = {name: {"known": 0, "filled": 0, "unsure": 0} for name in names}
    for old, new in zip(before, after, strict=True):
        assert all(new[column] == cell for column, cell in old.items() if cell)
        for name in names:
            values, chance = right.get((old["image"], name), ("", None))
            if old[name] or chance is None:
                assert (new[name], new[f"{name}_chance"]) == (old[name], "")
                counts[name]["known"] += bool(old[name])
                continue
            assert float(new[f"{name}_chance"]) == pytest.approx(chance, abs=2e-3)
            if abs(chance - confidence) > 1e-3:
                assert new[name] == (values if chance > confidence else "")
            counts[name]["filled" if new[name] else "unsure"] += 1
    assert json.loads(text)["attributes"] == counts
    assert sum(c["filled"] for c in counts.values())
    assert sum(c["unsure"] for c in counts.values())
    # Nothing is written over, and what was tagged can be tagged again.
    code, text, err = run(capsys, "tag", shop.catalogue, *options)
    assert (code, text) == (2, "")
    assert "is there already" in err
    shutil.copytree(shop.catalogue, "again")
    shutil.move("shop-tagged.csv", "again/labels.csv")
    low = ("--checkpoint", shop.run, "--confidence", 0)
    assert run(capsys, "tag", "again", *low)[0] == 0
    assert list(read(Path("again-tagged.csv"))[0]) == header


@pytest.mark.parametrize(("least", "confidence"), [(0.0, ()), (2.0, ()), (2.0, (0,))])
def test_values_have_thresholds_of_their_own(
    capsys, shop: Shop, least: float, confidence: tuple[int, ...]
) -> None:
    trim = load_checkpoint(shop.run).schema.attributes[-1]
    assert (trim.name, trim.multi) == ("trim", True)
    shutil.copytree(shop.run / "best", "run")
    about = json.loads(Path("run/config.json").read_text())
    about["training"]["thresholds"] = {"trim": [0.0, 2.0, least]}  # gold is there, lace is not
    Path("run/config.json").write_text(json.dumps(about))
    told = ("--confidence", *confidence) if confidence else ()
    code, _, err = run(capsys, "tag", shop.catalogue, "--checkpoint", "run", *told)
    assert code == 0, err
    cells = {row["trim"] for row in read(Path("shop-tagged.csv")) if row["trim_chance"]}
    assert cells == {"gold" if least else "gold|red"}


def test_the_index_says_the_same_and_no_picture_is_opened(
    capsys, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, "tag", shop.catalogue, "--checkpoint", shop.run, "--out", "a.csv")[0] == 0
    monkeypatch.setattr("training.images.batches.read_image_file", None)
    only = ("--attributes", "trim,colour")
    code, _, err = run(
        capsys, "tag", shop.catalogue, "--index", shop.index, *only, "--out", "b.csv"
    )
    assert code == 0, err
    for one, two in zip(read(Path("a.csv")), read(Path("b.csv")), strict=True):
        for name in ("trim_chance", "colour_chance"):
            assert bool(one[name]) == bool(two[name])
            assert float(one[name] or 0) == pytest.approx(float(two[name] or 0), abs=0.01)
        assert "shape_chance" not in two
    shutil.copytree(shop.catalogue / "images", "elsewhere/images2")
    code, _, err = run(capsys, "tag", "elsewhere", "--index", shop.index)
    assert code == 3
    assert "none of the" in err


def test_the_form_of_a_table_is_kept(capsys, shop: Shop) -> None:
    shutil.copytree(shop.catalogue / "images", "mine/images")
    lines = [
        'sep=;', 'Foto;"Größe; cm";colour;Colour of box;note',
        'images/000.png;"1;5";;RED;"two\r\nlines"', ';;;;',
        'images/001.png;n/a;Red;;', 'images/002.png; 2 ;red;;', ';7;;;no picture',
        'images/none.png;8;;;', 'images/003.png;9;n/a;;x',
    ]  # fmt: skip
    text = "\r\n".join(lines) + "\r\n"
    Path("mine/labels.csv").write_bytes(text.encode("cp1252"))
    options = ("--checkpoint", shop.run, "--attributes", "colour", "--confidence", 0)
    code, _, err = run(capsys, "tag", "mine", *options)
    assert code == 0, err
    assert "images/none.png" in err
    found = Path("mine-tagged.csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.reader(found.splitlines(keepends=True)[1:], delimiter=";"))
    assert found.startswith("sep=;\r\n")
    assert found.count("\r\n") == found.count("\n")
    was = list(csv.reader(text.splitlines(keepends=True)[1:], delimiter=";"))
    assert rows[0] == ["Foto", "Größe; cm", "colour", "colour_chance", "Colour of box", "note"]
    without = [[*row[:2], *row[4:]] if len(row) == 6 else [*row[:2], *row[3:]] for row in rows]
    assert without == [[*row[:2], *row[3:]] for row in was]
    filled = [row[2:4] for row in rows[1:] if row[0] and row[0] != "images/none.png"]
    assert filled[1:3] == [["Red", ""], ["red", ""]]  # as it was spelled
    for value, chance in (filled[0], filled[3]):
        assert value
        assert float(chance) > 0


def test_pictures_without_a_table_are_listed(capsys, shop: Shop) -> None:
    shutil.copytree(shop.catalogue / "images", "photos/a")
    Path("photos/a/bad.jpg").write_bytes(b"no picture")
    code, text, err = run(capsys, "tag", "photos", "--checkpoint", shop.run, "--confidence", 0)
    assert code == 0, err
    assert "a/bad.jpg" in err
    assert "1 pictures could not be seen" in text
    rows = read(Path("photos-tagged.csv"))
    names = [attribute.name for attribute in load_checkpoint(shop.run).schema.attributes]
    assert list(rows[0]) == ["image", *(n for name in names for n in (name, f"{name}_chance"))]
    files = sorted(p.relative_to("photos").as_posix() for p in Path("photos").rglob("*.*"))
    assert [row["image"] for row in rows] == files
    for row in rows:
        assert all(bool(row[name]) == (row["image"] != "a/bad.jpg") for name in names)


def test_an_interrupted_run_goes_on(capsys, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(shop.catalogue / "images", "photos")
    count = len(list(Path("photos").iterdir()))
    assert count > 32
    start = ("tag", "photos", "--checkpoint", shop.run)
    real, given = retrieval.tags.predict, []

    def killed(*arguments):
        yield next(real(*arguments))
        raise KeyboardInterrupt

    def counted(checkpoint, device, root, paths, progress):
        given.append(len(paths))
        return real(checkpoint, device, root, paths, progress)

    monkeypatch.setattr(retrieval.tags, "predict", killed)
    assert run(capsys, *start)[0] == 130
    assert not Path("photos-tagged.csv").exists()
    (partial,) = Path().glob(".*")
    with partial.open("ab") as handle:
        handle.write(b"half a row")
    monkeypatch.setattr(retrieval.tags, "predict", counted)
    code, _, err = run(capsys, *start)
    assert code == 0, err
    assert given == [count - 32]
    assert f"32 of {count} pictures are done already" in err
    assert run(capsys, *start, "--out", "whole.csv")[0] == 0
    assert given[1] == count
    assert Path("photos-tagged.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_what_was_kept_of_other_pictures_does_not_count(tmp_path: Path) -> None:
    file, rows = tmp_path / "kept", np.arange(12, dtype=np.float32).reshape(4, 3)
    resumed(file, b"a" * 32, 3, lambda done: iter([rows]))
    again = resumed(file, b"a" * 32, 3, lambda done: iter([np.full((1, 3), done, np.float32)]))
    np.testing.assert_array_equal(again, [*rows, [4, 4, 4]])
    other = resumed(file, b"b" * 32, 3, lambda done: iter([np.full((1, 3), done, np.float32)]))
    np.testing.assert_array_equal(other, [[0, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["shop"], 2, "--checkpoint"),
        (["shop", "--checkpoint", "runs/shop", "--index", "indexes/shop"], 2, "or an index"),
        (["none", "--checkpoint", "runs/shop"], 2, "none is no folder"),
        (["runs/shop/best", "--checkpoint", "runs/shop"], 3, "neither a table nor a picture"),
        (["shop", "--checkpoint", "shop"], 3, "is no checkpoint"),
        (["shop", "--checkpoint", "runs/shop", "--attributes", "colours"], 2, "colours"),
        (["shop", "--checkpoint", "runs/shop", "--sheet", "a.txt"], 2, "a.txt"),
        (["shop", "--checkpoint", "runs/shop", "--out", "shop/labels.csv"], 2, "there already"),
    ],
)
def test_mistakes(capsys, shop: Shop, monkeypatch, arguments: list[str], code: int, words) -> None:
    monkeypatch.chdir(shop.root)
    found, text, err = run(capsys, "tag", *arguments)
    assert (found, text) == (code, ""), err
    assert words in err
    assert not list(Path().glob("*tagged*"))
