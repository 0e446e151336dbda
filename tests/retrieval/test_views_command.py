"""`retrieve views`: what is listed, added and removed, on a copy of the small index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from small_index import Shop, run

from indexer.store import open_store
from indexer.views import embed, named
from indexer.warm_views import FOLDER, WarmViews
from training.checkpoint import load_checkpoint


@pytest.fixture
def index(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one index of a working folder."""
    shutil.copytree(shop.index, tmp_path / "indexes/shop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path / "indexes/shop"


def listed(capsys, *arguments: object) -> dict:
    code, out, err = run(capsys, "views", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_views_built_ahead(index: Path, capsys) -> None:
    found = listed(capsys)
    manifest = open_store(index).manifest
    assert [(v["key"], v["name"]) for v in found["views"]] == [
        (v.key, v.name) for v in manifest.views
    ]
    for view, entry in zip(found["views"], manifest.views, strict=True):
        assert view == {
            "key": entry.key, "name": entry.name, "kind": "built", "rows": 68,
            "bytes": entry.file.size, "factory": "Flat", "refine": 1, "nprobe": 0,
            "recall": None, "seconds": entry.seconds, "last_used": None,
        }  # fmt: skip
    assert found["bytes"] == sum(v.file.size for v in manifest.views)
    assert (found["warm_bytes"], found["warm_budget_bytes"]) == (0, 4 * 10**9)
    assert not (index / FOLDER).exists()  # listing writes nothing
    code, out, err = run(capsys, "views", index)
    assert (code, err) == (0, "")
    for entry in manifest.views:
        assert entry.name in out
        assert entry.key in out


def test_add_drop_and_clear(index: Path, capsys) -> None:
    code, out, err = run(capsys, "views", "--add", "disc, gold", "--without", "blue")
    assert code == 0
    assert "kept" in err
    store = open_store(index)
    wanted = named(store.schema, store.schema.condition(["disc", "gold"], ["blue"]))
    assert wanted.name in out
    assert "warm" in out
    warm = WarmViews(index, store.manifest.content)
    view = warm.load(wanted.key)
    assert view is not None
    model = load_checkpoint(store.model_folder).model
    np.testing.assert_allclose(view.vectors, embed(store, model, wanted.condition), atol=1e-6)
    assert listed(capsys, "--like", "colour", "--add", "gold")["warm_bytes"] == 2 * (
        68 * 32 * 4 + 45
    )
    assert "warm already" in run(capsys, "views", "--add", "disc,gold", "--without", "blue")[2]
    assert "built ahead already" in run(capsys, "views", "--like", "colour")[2]
    last = [v for v in listed(capsys)["views"] if v["kind"] == "warm"]
    assert last[0]["name"] == wanted.name  # it was asked for last
    assert last[0]["last_used"].startswith("20")
    run(capsys, "views", "--drop", wanted.name)
    assert [v["key"] for v in listed(capsys)["views"] if v["kind"] == "warm"] == [last[1]["key"]]
    assert "removed" in run(capsys, "views", "--drop", last[1]["key"])[2]
    run(capsys, "views", "--add", "disc,gold")
    assert "removed" in run(capsys, "views", "--drop", "Gold, disc")[2]  # as --add takes it
    run(capsys, "views", "--add", "gold")
    assert "1 warm views removed" in run(capsys, "views", "--clear")[2]
    assert listed(capsys)["warm_bytes"] == 0


def test_the_budget_evicts(index: Path, capsys) -> None:
    two = 2.5 * (68 * 32 * 4 + 45) / 1e9
    for name in ("gold", "disc", "lace"):
        run(capsys, "views", "--add", name, "--budget", two)
    warm = [v["name"] for v in listed(capsys)["views"] if v["kind"] == "warm"]
    assert len(warm) == 2
    assert "lace" in warm[0]
    assert "disc" in warm[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--add", "nonsense"], 2, "nonsense"),
        (["--add", "disc,,gold"], 2, "empty name"),
        (["--add", "disc", "--without", "disc"], 2, "disc"),
        (["--drop", "no such"], 2, "no warm view has that key or name"),
        (["--drop", "colour=any"], 2, "built ahead"),
        (["--drop", "x", "--clear"], 2, "leave --drop out"),
        (["--add", "gold", "--budget", "0.000001"], 2, "more than --budget"),
        (["--budget", "-1"], 2, "--budget"),
        (["elsewhere"], 3, "no index in elsewhere"),
        (["shop/labels.csv"], 3, "no index in shop/labels.csv"),
    ],
)
def test_wrong_arguments(index: Path, capsys, arguments: list[str], code: int, words: str) -> None:
    found, out, err = run(capsys, "views", *arguments)
    assert (found, out) == (code, "")
    assert words in err


def test_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "views")
    assert code == 2
    assert "name one with INDEX" in err


def test_a_folder_that_cannot_be_written(index: Path, capsys) -> None:
    (index / FOLDER).write_text("no folder")
    code, _, err = run(capsys, "views", "--add", "gold")
    assert code == 6
    assert "was not kept" in err
    assert listed(capsys)["warm_bytes"] == 0


def test_build_index_says_what_searches(shop: Shop, index: Path, capsys) -> None:
    arguments = ("build-index", "--dataset", shop.catalogue, "--checkpoint", shop.run / "best")
    checkpoint = shop.run if not (shop.run / "best").exists() else shop.run / "best"
    arguments = (*arguments[:-1], checkpoint, "--out", index, "--workers", 0)
    code, out, _ = run(capsys, *arguments, "--index-factory", "PQ8x4fs", "--recall", 0.9)
    assert code == 0
    assert "search    PQ8x4fs: as asked for; recall@10" in out
    found = listed(capsys)
    for view in found["views"]:
        assert (view["factory"], view["kind"]) == ("PQ8x4fs", "built")
        assert 0.9 <= view["recall"] <= 1
        assert view["refine"] >= 2
        assert view["seconds"] is not None
    assert "PQ8x4fs, refined x" in run(capsys, "views")[1]
    code, _, err = run(capsys, *arguments, "--index-factory", "nonsense")
    assert (code, "'nonsense'" in err) == (2, True)
    assert run(capsys, *arguments, "--recall", 0)[0] == 2


@pytest.mark.parametrize("budget", ["nan", "inf"])
def test_a_budget_is_a_number(index: Path, capsys, budget: str) -> None:
    code, _, err = run(capsys, "views", "--budget", budget)
    assert code == 2
    assert budget in err


@pytest.mark.parametrize("columns", [80, 200])
def test_headings_are_whole_on_any_terminal(
    index: Path, capsys, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("retrieval.console.stdout", Console(width=columns))
    out = run(capsys, "views")[1]
    shown = ["condition", "kind", "rows", "MB", "searched with", "recall@10"]
    wide = ["key", "seconds", "last used"]
    heading = next(line for line in out.splitlines() if "kind" in line)
    assert [word for word in shown if word not in heading] == []
    assert [word for word in wide if word in heading] == (wide if columns == 200 else [])
