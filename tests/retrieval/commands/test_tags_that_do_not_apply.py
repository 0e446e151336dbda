"""Discs have a rim, squares have none: learnt, told, and read back."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from small_index import run
from tiny_catalogue import write_tiny_catalogue

from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.recipe import Recipe
from training.run import RunConfig, run_training

RIMS = {"red": "warm", "green": "cool", "blue": "cool"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `shop/`, whose test rows say nothing of rims, `told/`, in which they do, and a
    run."""
    root = tmp_path_factory.mktemp("rims")
    write_tiny_catalogue(root / "shop", 240)
    with open(root / "shop/labels.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    (root / "told").mkdir()
    (root / "told/images").symlink_to(root / "shop/images")
    for folder in ("shop", "told"):
        with open(root / folder / "labels.csv", "w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["image", "split", "rim", "colour"])
            for row in rows:
                rim = RIMS[row["colour"]] if row["shape"] == "disc" else "Not applicable"
                hidden = folder == "shop" and row["split"] == "test"
                writer.writerow([row["image"], row["split"], "" if hidden else rim, row["colour"]])
    recipe = Recipe(
        epochs=12, batch_size=20, freeze="none", freeze_norm=False, crop=0.9,
        learning_rate=3e-3, backbone_learning_rate=3e-3, drop_maps=0.0, nuance_weight=0.0,
    )  # fmt: skip
    model = ModelConfig("small", "layer3", dim=32, grid=4, pooling="max", lower_stages=False)
    config = RunConfig(model, recipe, Preprocessing(size=48))
    run_training(load_dataset(str(root / "shop")), config, root / "run")
    return root


def test_tags_say_it_and_are_read_back(
    capsys, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = load_dataset(str(shop / "told"))
    own = told.schema.slice_of(told.schema.attribute("rim"))
    hidden = told.rows_of("test")
    lacking = (told.labels[:, own] == -1).all(axis=1)
    assert 0 < lacking[hidden].sum() < len(hidden)
    command = ("tag", shop / "shop", "--checkpoint", shop / "run", "--coverage", 0.9)
    code, _, err = run(capsys, *command, "--out", "labels.csv", "--confidence", 0)
    assert code == 0, err
    again = load_dataset(str(tmp_path))
    assert again.schema.attributes[again.schema.attribute("rim")].optional
    rim = again.schema.slice_of(again.schema.attribute("rim"))
    assert (again.labels[:, rim] != 0).all()  # every cell is filled, by a value or by none
    known = np.setdiff1d(told.rows_of("all"), hidden)
    np.testing.assert_array_equal(again.labels[known, rim], told.labels[known, own])
    said = (again.labels[:, rim] == -1).all(axis=1)
    assert (said == lacking)[hidden].mean() > 0.85
    with open("labels.csv", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["rim_chance"]]
    assert len(rows) == len(hidden)
    assert {row["rim"] for row in rows} == {"warm", "cool", "not applicable"}
    assert {part for row in rows for part in row["rim_set"].split("|") if part} <= {
        *("warm", "cool", "not applicable")
    }
    assert np.mean([bool(row["rim_set"]) for row in rows]) > 0.7


def test_named_values_leave_it_behind_and_hits_say_so(capsys, shop: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    built = ("--dataset", shop / "told", "--checkpoint", shop / "run", "--out", index)
    code, _, err = run(capsys, "build-index", *built, "--split", "test", "--workers", 0)
    assert code == 0, err
    command = ("query", shop / "shop/images/210.png", "--index", index, "--json", "--top-k", 8)
    code, out, err = run(capsys, *command, "--attrs", "cool", "--keep", 0)
    assert code == 0, err
    hits = json.loads(out)["hits"]
    assert [hit["known"]["rim"] for hit in hits] == [["cool"]] * 8
    code, out, err = run(capsys, *command, "--where", "rim!=warm", "--where", "rim!=cool")
    assert code == 0, err
    hits = json.loads(out)["hits"]
    assert [hit["known"]["rim"] for hit in hits] == [["not applicable"]] * 8
    guessed = [hit["predicted"]["rim"]["value"] for hit in hits]
    assert guessed.count("not applicable") >= 6


def test_figures_count_it(capsys, shop: Path, tmp_path: Path) -> None:
    evaluated = ("--dataset", shop / "told", "--checkpoint", shop / "run", "--out", tmp_path)
    code, out, err = run(capsys, "evaluate", *evaluated, "--json", "--workers", 0)
    assert code == 0, err
    data = json.loads(out)
    told = load_dataset(str(shop / "told"))
    assert data["tags"]["attributes"]["rim"]["images"] == len(told.rows_of("test"))
    assert data["tags"]["attributes"]["rim"]["accuracy"] > 0.8
    assert data["attributes"]["rim"]["candidates"] == len(told.rows_of("test"))
    assert data["attributes"]["rim"]["queries"] < len(told.rows_of("test"))
    code, out, err = run(capsys, "inspect", "--dataset", shop / "told", "--no-images", "--json")
    assert code == 0, err
    (rim,) = [a for a in json.loads(out)["attributes"] if a["name"] == "rim"]
    assert [value["name"] for value in rim["values"]] == ["cool", "warm", "not applicable"]
    assert rim["labelled"]["all"] == sum(v["images"]["all"] for v in rim["values"]) == len(told)
    # Of labels that are turned round, those are doubted that are wrong.
    rows = (shop / "told/labels.csv").read_text().splitlines()
    squares = [n for n, row in enumerate(rows) if "Not applicable" in row and "test" in row][:2]
    for n in squares:
        rows[n] = rows[n].replace("Not applicable", "cool")
    discs = [n for n, row in enumerate(rows) if ",warm," in row and "test" in row][:2]
    for n in discs:
        rows[n] = rows[n].replace("warm", "not applicable")
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong/images").symlink_to(shop / "shop/images")
    (tmp_path / "wrong/labels.csv").write_text("\n".join(rows))
    doubted = ("--suspicious", "--checkpoint", shop / "run", "--no-images", "--json")
    code, out, err = run(capsys, "inspect", "--dataset", tmp_path / "wrong", *doubted)
    assert code == 0, err
    found = json.loads(out)["suspicious"]
    names = {rows[n].split(",")[0] for n in (*squares, *discs)}
    assert len(names & {one["path"] for one in found[:8]}) >= 3
    assert load_checkpoint(shop / "run").training["true_chances"].keys() == {"rim", "colour"}
