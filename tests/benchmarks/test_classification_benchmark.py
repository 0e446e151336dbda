"""`retrieve bench classification` on a tiny catalogue with models that were never trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from retrieval.cli import _run
from retrieval.evaluation.classification import classification_report, head_scores
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.maps import bank_from_images
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion

RECIPE = {"attribute_weight": 1.0, "value_weight": 1.0, "category_weight": 0.2}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalogue(tmp_path_factory.mktemp("tiny") / "tiny", 90)


def save(dataset: Dataset, folder: Path, seed: int, **recipe: float) -> Path:
    torch.manual_seed(seed)
    config = ModelConfig("small", "layer2", grid=4, dim=16)
    model = M2Fashion(dataset.schema, config, len(dataset.category_names)).eval()
    remarks = {"dataset": "tiny", "seed": seed, "recipe": RECIPE | recipe}
    save_checkpoint(folder, model, Preprocessing(size=32), dataset.category_names, remarks)
    return folder


def bench(catalogue: Path, out: Path, *options: str) -> int:
    arguments = ["--dataset", str(catalogue), "--results", str(out), "--workers", "0"]
    return _run(["bench", "classification", *arguments, *options], False)


def test_rows_are_what_the_heads_say(catalogue: Path, tmp_path: Path, capsys) -> None:
    dataset = load_dataset(str(catalogue))
    runs = [save(dataset, tmp_path / f"run-{n}", n) for n in range(2)]
    only = save(dataset, tmp_path / "only", 2, attribute_weight=0.0, value_weight=0.0)
    given = [f"M2={runs[0]}", f"M2={runs[1]}", f"category only={only}"]
    options = [word for text in given for word in ("--checkpoint", text)]
    assert bench(catalogue, tmp_path / "out", *options, "--split", "all") == 0
    (written,) = (tmp_path / "out").glob("*.json")
    assert written.name == "classification-tiny-small-all.json"
    data = json.loads(written.read_text())
    assert [(r["model"], r["training_seed"]) for r in data["rows"]] == [
        ("M2", 0),
        ("M2", 1),
        ("category only", 2),
    ]
    loaded = load_checkpoint(runs[0])
    every = dataset.rows_of("all")
    bank, _ = bank_from_images(loaded.model, dataset, every, Reading(loaded.preprocessing))
    scores = head_scores(bank, dataset.labels * 0, chunk=7)
    report = classification_report(dataset.schema, dataset.labels, dataset.category, scores)
    row = data["rows"][0]["under_labels"]
    assert report.category is not None
    assert row["category"]["recall"] == pytest.approx(report.category.recall, abs=1e-3)
    for score in report.types:
        assert row["types"][score.name]["recall"] == pytest.approx(score.recall, abs=1e-3)
        assert len(row["types"][score.name]["ci"]) == 3
    assert row["all-mean"]["recall"] == pytest.approx(report.all_mean, abs=1e-3)
    assert [step["share"] for step in data["rows"][0]["curve"]] == [0.25, 0.5, 0.75]
    without = data["rows"][2]
    assert without["under_labels"]["types"] == {}
    assert without["under_labels"]["category"] is not None
    assert without["under_types"]["all-micro"] is None
    markdown = (tmp_path / "out/classification-tiny-small-all.md").read_text()
    assert markdown in capsys.readouterr().out
    lines = [line for line in markdown.splitlines() if line.startswith("| category only | 1 |")]
    assert len(lines) == 1
    assert lines[0].endswith("| - | - | - | - | - |")
    assert "±" in next(line for line in markdown.splitlines() if line.startswith("| M2 | 1 |"))
    assert "not reproduced here" in markdown.split("## Published: Table 1")[1]


def test_head_scores_are_the_heads_on_each_images_own_condition(catalogue, tmp_path) -> None:
    dataset = load_dataset(str(catalogue))
    loaded = load_checkpoint(save(dataset, tmp_path / "run", 0))
    model = loaded.model
    rows = np.arange(10)
    bank, _ = bank_from_images(model, dataset, rows, Reading(loaded.preprocessing))
    told = np.where(np.arange(10)[:, None] % 3 == 0, 0, dataset.labels[:10]).astype(np.int8)
    scores = head_scores(bank, told, chunk=4)
    assert scores.attributes is not None
    for n in range(10):
        states = torch.from_numpy(told[n]).float()[None, None]
        z = model.attend_raw(bank.maps[n : n + 1].float(), states, bank.keys[n : n + 1].float())
        np.testing.assert_allclose(
            scores.attributes[n], model.attribute_head(z)[0, 0].numpy(), atol=1e-5
        )
        assert model.category_head is not None
        assert scores.categories is not None
        np.testing.assert_allclose(
            scores.categories[n], model.category_head(z)[0, 0].numpy(), atol=1e-5
        )


def test_mistakes_are_told(catalogue: Path, tmp_path: Path, capsys) -> None:
    dataset = load_dataset(str(catalogue))
    run = save(dataset, tmp_path / "run", 0)
    fewer = load_dataset(str(catalogue), None, ["colour"])
    other = save(fewer, tmp_path / "other", 0)
    for options, code, words in (
        (["--checkpoint", str(run)], 2, "NAME=RUN"),
        (["--checkpoint", f"={run}"], 2, "NAME=RUN"),
        (["--checkpoint", f"a={tmp_path / 'none'}"], 3, "is no checkpoint"),
        (["--checkpoint", f"a={run}", "--split", "tests"], 2, "no image in split 'tests'"),
        (["--checkpoint", f"a={run}", "--checkpoint", f"b={other}"], 3, "other attributes"),
    ):
        assert bench(catalogue, tmp_path / "out", *options) == code, words
        assert words in capsys.readouterr().err
