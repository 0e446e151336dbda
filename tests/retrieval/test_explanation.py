"""`retrieve query --explain`: whose attention, on which picture, drawn how large."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_index import Shop, run

from retrieval.engine import Engine
from retrieval.hits import Hit, QueryResult
from retrieval.request import Request
from retrieval.sheet import (
    CELL,
    GAP,
    LINE,
    MOST_EXPLAINED,
    Explanation,
    Seen,
    conditions_of,
    cut,
    explain,
    explanation_sheet,
    save_explanation,
)
from training.checkpoint import load_checkpoint
from training.errors import ResourceError, UsageError
from training.images.tensors import normalise

PICTURE = "shop/images/000.png"


@pytest.fixture(autouse=True)
def _work_there(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.root)


def place(row: int, column: int, lines: int) -> tuple[int, int]:
    """Left and top of a picture of the sheet."""
    return GAP + column * (CELL + GAP), 3 * LINE + GAP + row * (CELL + LINE * (2 + lines) + 2 * GAP)


def picture_at(sheet: Image.Image, row: int, column: int, lines: int = 0) -> np.ndarray:
    left, top = place(row, column, lines)
    return np.asarray(sheet.crop((left, top, left + CELL, top + CELL)), dtype=float)


def test_maps_are_those_of_the_model_on_the_files(shop: Shop) -> None:
    engine = Engine.open("indexes/shop", "cpu")
    request = Request(PICTURE, ["disc"], ["blue"], ["colour"], top_k=3)
    asked = conditions_of(engine.schema, request)
    assert len(asked) == 4
    result = engine.query(request)
    found = explain(engine, request, result)
    assert found.conditions[1:] == ("disc", "- blue", "colour=any")
    assert found.conditions[0] == result.condition
    model = load_checkpoint(shop.run).model
    preprocessing = engine.store.preprocessing
    paths = [Path(PICTURE), *(hit.path for hit in result)]
    for seen, path in zip(found.seen, paths, strict=True):
        pixels = preprocessing.open(path)
        assert isinstance(seen, Seen)
        np.testing.assert_array_equal(np.asarray(seen.picture), pixels.transpose(1, 2, 0))
        maps = model.features(normalise(torch.from_numpy(pixels)[None], preprocessing))
        for condition, alpha in zip(asked, seen.attention, strict=True):
            states = torch.from_numpy(condition).float()[None]
            expected = model.attention(maps, states)[0].numpy()
            np.testing.assert_allclose(alpha, expected, atol=1e-6)
            assert alpha.sum() == pytest.approx(1, abs=1e-4)
    # A hit's panel is its own: other pictures have other maps.
    one, two = (seen.attention for seen in found.seen[1:3])
    assert np.abs(one - two).max() > 1e-4


@pytest.mark.parametrize(
    ("names", "columns", "lines"),
    [
        ([], 1, 0),
        (["--attrs", "disc"], 1, 1),
        (["--like", "colour"], 1, 0),
        (["--attrs", "disc,gold"], 3, 2),
        (["--attrs", "disc", "--without", "gold", "--like", "category"], 4, 2),
    ],
)
def test_the_png_opens_and_has_a_row_a_picture_and_a_column_a_condition(
    capsys, tmp_path: Path, names: list[str], columns: int, lines: int
) -> None:
    out = tmp_path / "where.png"
    code, _, err = run(capsys, "query", PICTURE, *names, "--top-k", 3, "--explain", out)
    assert (code, err.strip()) == (0, f"explanation written to {out}")
    with Image.open(out) as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")
        assert sheet.size == (
            (1 + columns) * (CELL + GAP) + GAP,
            place(4, 0, lines)[1] + GAP,
        )
        seen = picture_at(sheet, 0, 0, lines)
        with Image.open(PICTURE) as picture:
            small = picture.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        shown = np.asarray(small.resize((CELL, CELL), Image.Resampling.LANCZOS), dtype=float)
        assert np.abs(seen - shown).mean() < 3  # the picture as the model saw it
        assert np.abs(picture_at(sheet, 0, 1, lines) - seen).max() > 20  # the overlay beside it


def test_the_overlay_is_where_alpha_is() -> None:
    picture = Image.new("RGB", (32, 32), (90, 120, 90))
    cells = [(0, 0), (2, 3), (3, 1)]
    seen = []
    for cell in cells:
        alpha = np.zeros((1, 4, 4), dtype=np.float32)
        alpha[(0, *cell)] = 1
        seen.append(Seen(picture, alpha))
    hits = (Hit(1, 0.5, 0.5, Path("a.jpg"), "a.jpg", 0, {}, {}, ()),) * 2
    result = QueryResult("q.jpg", "disc", (), {}, hits, 2, 2)
    sheet = explanation_sheet(Explanation(result, ("disc",), tuple(seen)))
    for row, cell in enumerate(cells):
        changed = np.abs(picture_at(sheet, row, 1) - (90, 120, 90)).sum(-1)
        means = changed.reshape(4, CELL // 4, 4, CELL // 4).mean((1, 3))
        assert np.unravel_index(means.argmax(), means.shape) == cell


def test_pictures_that_are_gone_or_broken_have_an_empty_row_with_the_reason(
    shop: Shop, tmp_path: Path
) -> None:
    engine = Engine.open("indexes/shop", "cpu")
    request = Request(PICTURE, ["disc"], top_k=3)
    result = engine.query(request)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = [tmp_path / "gone.png", tmp_path / "broken.png", result.hits[2].path]
    hits = tuple(replace(hit, path=path) for hit, path in zip(result.hits, names, strict=True))
    result = replace(result, hits=hits)
    seen = explain(engine, request, result).seen
    assert [isinstance(one, Seen) for one in seen] == [True, False, False, True]
    assert "no such file" in str(seen[1])
    assert "not an image" in str(seen[2])
    assert str(tmp_path) not in f"{seen[1]}{seen[2]}"
    save_explanation(engine, request, result, tmp_path / "where.png")
    with Image.open(tmp_path / "where.png") as sheet:
        row = picture_at(sheet, 1, 0, 1)
        assert tuple(row[3, 3]) == (246, 248, 250)
        assert (row[CELL // 2 : CELL // 2 + 20] < 200).any()  # the reason
        assert (picture_at(sheet, 1, 1, 1) == 255).all()


def test_no_hits_and_very_many(shop: Shop) -> None:
    engine = Engine.open("indexes/shop", "cpu")
    many = Request(PICTURE, top_k=68, include_query=True)
    every = explain(engine, many, engine.query(many))
    assert len(every.seen) == MOST_EXPLAINED + 1
    none = Request(PICTURE, where={"colour": "red", "shape": "square", "category": "round"})
    found = explain(engine, none, engine.query(none))
    assert len(found.seen) == 1
    assert explanation_sheet(found).height > CELL
    assert cut(engine.query(many), MOST_EXPLAINED) == f" (first {MOST_EXPLAINED} of 68 hits)"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--explain", "out.txt"], 2, "the explanation out.txt needs a name that ends in .png"),
        (["--explain", "no/such/out.png"], 2, "needs a folder that exists"),
        (["--explain", PICTURE], 2, "would overwrite the query image"),
        (["--explain", "a.png", "--sheet", "./a.png"], 2, "name one file"),
        (["--explain", "folder.png"], 6, "cannot write the explanation folder.png"),
    ],
)
def test_names_that_cannot_be_written(capsys, options: list[str], code: int, words: str) -> None:
    Path("folder.png").mkdir(exist_ok=True)
    found, out, err = run(capsys, "query", PICTURE, *options)
    assert (found, out) == (code, "")
    assert words in err
    assert "Traceback" not in err
    assert not Path("a.png").exists()


def test_a_folder_without_permission(shop: Shop, tmp_path: Path, monkeypatch) -> None:
    engine = Engine.open("indexes/shop", "cpu")
    request = Request(PICTURE, top_k=1)
    result = engine.query(request)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    # A superuser may write anywhere, so the system's answer is given by hand.
    monkeypatch.setattr(Image.Image, "save", refuse)
    with pytest.raises(ResourceError, match="Permission denied") as caught:
        save_explanation(engine, request, result, tmp_path / "x.png")
    assert caught.value.exit_code == 6
    with pytest.raises(UsageError):
        save_explanation(engine, request, result, tmp_path / "x.txt")
