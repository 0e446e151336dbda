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
from retrieval.explanation import (
    MOST_HITS,
    Explanation,
    Panel,
    conditions_of,
    explain,
    explanation_sheet,
    save_explanation,
)
from retrieval.sheet import CELL, GAP, LINE
from training.checkpoint import load_checkpoint
from training.errors import ResourceError, UsageError

PICTURE = "shop/images/000.png"


@pytest.fixture(autouse=True)
def _work_there(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.root)


def place(row: int, column: int, lines: int) -> tuple[int, int]:
    """Left and top of a picture of the sheet."""
    return GAP + column * (CELL + GAP), 3 * LINE + GAP + row * (CELL + LINE * (2 + lines) + GAP)


def picture_at(sheet: Image.Image, row: int, column: int, lines: int = 0) -> np.ndarray:
    left, top = place(row, column, lines)
    return np.asarray(sheet.crop((left, top, left + CELL, top + CELL)), dtype=float)


def test_maps_are_those_of_the_model_on_query_and_stored_hits(shop: Shop) -> None:
    engine = Engine.open("indexes/shop", "cpu")
    asked = conditions_of(engine.schema, ["disc"], ["blue"], ["colour"])
    assert len(asked) == 4
    result = engine.query(PICTURE, ["disc"], ["blue"], ["colour"], top_k=3)
    found = explain(engine, result, Path(PICTURE), asked)
    assert found.conditions[1:] == ("disc", "- blue", "colour=any")
    assert found.conditions[0] == result.condition
    model = load_checkpoint(shop.run).model
    preprocessing = engine.store.preprocessing
    paths = [Path(PICTURE), *(hit.path for hit in result)]
    for panel, path in zip(found.panels, paths, strict=True):
        pixels = preprocessing.open(path)
        np.testing.assert_array_equal(np.asarray(panel.picture), pixels.transpose(1, 2, 0))
        maps = model.features(preprocessing.normalise(torch.from_numpy(pixels)[None]))
        for condition, alpha in zip(asked, panel.attention, strict=True):
            states = torch.from_numpy(condition).float()[None]
            expected = model.attention(maps, states)[0].numpy()
            # Stored maps are int8; the query's are fresh.
            close = 1e-6 if path == Path(PICTURE) else 2e-3
            np.testing.assert_allclose(alpha, expected, atol=close)
            assert alpha.sum() == pytest.approx(1, abs=1e-4)
    # A hit's panel is its own: other pictures have other maps.
    assert np.abs(found.panels[1].attention - found.panels[2].attention).max() > 1e-4


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


def panel(alpha: np.ndarray, picture: Image.Image | None) -> Panel:
    return Panel(("1.  0.5", "a.jpg"), (), picture, alpha[None].astype(np.float32))


@pytest.mark.parametrize("there", [True, False])
def test_the_overlay_is_where_alpha_is_also_without_a_picture(there: bool) -> None:
    picture = Image.new("RGB", (32, 32), (90, 120, 90)) if there else None
    cells = [(0, 0), (2, 3), (3, 1)]
    panels = []
    for cell in cells:
        alpha = np.zeros((4, 4))
        alpha[cell] = 1
        panels.append(panel(alpha, picture))
    sheet = explanation_sheet(Explanation("disc", ("disc",), tuple(panels)))
    ground = np.array((90, 120, 90) if there else (246, 248, 250))
    for row, cell in enumerate(cells):
        changed = np.abs(picture_at(sheet, row, 1) - ground).sum(-1)
        means = changed.reshape(4, CELL // 4, 4, CELL // 4).mean((1, 3))
        assert np.unravel_index(means.argmax(), means.shape) == cell


def test_pictures_that_are_gone_or_broken_still_have_their_maps(shop: Shop, tmp_path: Path) -> None:
    engine = Engine.open("indexes/shop", "cpu")
    result = engine.query(PICTURE, ["disc"], top_k=3)
    asked = conditions_of(engine.schema, ["disc"], [], [])
    intact = explain(engine, result, Path(PICTURE), asked)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = [tmp_path / "gone.png", tmp_path / "broken.png", result.hits[2].path]
    hits = tuple(replace(hit, path=path) for hit, path in zip(result.hits, names, strict=True))
    result = replace(result, hits=hits)
    found = explain(engine, result, Path(PICTURE), asked)
    assert [p.picture is None for p in found.panels] == [False, True, True, False]
    for one, two in zip(intact.panels, found.panels, strict=True):
        np.testing.assert_array_equal(one.attention, two.attention)
    save_explanation(engine, result, Path(PICTURE), asked, tmp_path / "where.png")
    with Image.open(tmp_path / "where.png") as sheet:
        sheet.load()


def test_no_hits_and_very_many(shop: Shop) -> None:
    engine = Engine.open("indexes/shop", "cpu")
    asked = conditions_of(engine.schema, [], [], [])
    every = explain(engine, engine.query(PICTURE, top_k=68), Path(PICTURE), asked)
    assert len(every.panels) == MOST_HITS + 1
    assert f"first {MOST_HITS} of 68 hits" in every.title
    where = {"colour": "red", "shape": "square", "category": "round"}
    none = engine.query(PICTURE, where=where)
    found = explain(engine, none, Path(PICTURE), asked)
    assert len(found.panels) == 1
    assert explanation_sheet(found).height > CELL


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
    result = engine.query(PICTURE, top_k=1)
    asked = conditions_of(engine.schema, [], [], [])

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    # A superuser may write anywhere, so the system's answer is given by hand.
    monkeypatch.setattr(Image.Image, "save", refuse)
    with pytest.raises(ResourceError, match="Permission denied") as caught:
        save_explanation(engine, result, Path(PICTURE), asked, tmp_path / "x.png")
    assert caught.value.exit_code == 6
    with pytest.raises(UsageError):
        save_explanation(engine, result, Path(PICTURE), asked, tmp_path / "x.txt")
