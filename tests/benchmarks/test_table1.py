"""`retrieve bench table1` on a tiny catalogue with models that were never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from benchmarks.models.table1 import ClassificationRuns, markdown, result
from benchmarks.models.table2 import markdown as table_2
from benchmarks.tables import measure
from benchmarks.tables.keys import Ground
from benchmarks.tables.measure import Run
from benchmarks.tables.options import Setting
from benchmarks.tables.row_file import read_row_file
from retrieval.evaluation.classification import classification_report, head_scores
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.maps import bank_from_images
from training.models.config import ModelConfig, build_model

ROWS = """
title = "Mini"
reference = "M2"
[base.model]
stage = "layer2"
grid = 4
dim = 16
[rows]
WTBI = { variant = "wtbi", recipe = { value_weight = 0.0, category_weight = 0.0 } }
FashionNet = { variant = "fashionnet" }
M2 = {}
ASEN = { variant = "asen", recipe = { value_weight = 1.0, category_weight = 1.0 } }
"category only" = { recipe = { attribute_weight = 0.0, value_weight = 0.0 } }
"""


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalogue(tmp_path_factory.mktemp("tiny") / "tiny", 90)


def save(dataset: Dataset, folder: Path, config: ModelConfig | None = None, **told: Any) -> Path:
    torch.manual_seed(told.get("seed", 0))
    config = config or ModelConfig("small", "layer2", grid=4, dim=16)
    model = build_model(dataset.schema, config, len(dataset.category_names)).eval()
    save_checkpoint(folder, model, Preprocessing(size=32), dataset.category_names, told)
    return folder


class Untrained(ClassificationRuns):
    """Saves the model that a run would train."""

    def trained(self, run: Run, where: str) -> dict[str, Any]:
        """As it is before the first step."""
        told = {"seed": run.config.seed, "recipe": run.config.recipe.to_json()}
        save(self.dataset, self.folder(run), run.config.model, **told)
        return {"seconds": 1.0}


def runs_of(catalogue: Path, folder: Path, rows: str | None = None) -> Untrained:
    (folder / "rows.toml").write_text(ROWS)
    dataset = load_dataset(str(catalogue))
    where = {"name": "tiny", "root": None, "results": folder, "work": folder / "work"}
    setting = Setting(**where, backbone="small", seeds=2, device="cpu", workers=0, rows=rows)
    return Untrained(
        read_row_file(folder / "rows.toml"), setting, dataset, Ground("d", "w", "t", "e")
    )


def test_rows_are_what_the_heads_say(catalogue: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    runs = runs_of(catalogue, tmp_path)
    monkeypatch.setattr(measure, "ground", lambda dataset, weights: runs.ground)
    runs.measure()
    assert "left out, since it learns from landmarks: FashionNet" in capsys.readouterr().err
    data = result("table1", runs)
    assert data["left_out"] == ["FashionNet"]
    assert [(r["model"], r["training_seed"]) for r in data["rows"]] == [
        (name, seed) for name in ("WTBI", "M2", "ASEN", "category only") for seed in (0, 1)
    ]
    by = {r["model"]: r for r in data["rows"] if not r["training_seed"]}

    loaded = load_checkpoint(runs.folder(runs.chosen("M2")[0]))
    part = runs.dataset.subset(runs.dataset.rows_of("test"))
    every = part.rows_of("all")
    bank, _ = bank_from_images(loaded.model, part, every, Reading(loaded.preprocessing))
    scores = head_scores(bank, part.labels * 0, chunk=7)
    report = classification_report(part.schema, part.labels, part.category, scores)
    row = by["M2"]["under_labels"]
    assert report.category is not None
    assert row["category"]["recall"] == pytest.approx(report.category.recall, abs=1e-3)
    for score in report.types:
        assert row["types"][score.name]["recall"] == pytest.approx(score.recall, abs=1e-3)
        assert len(row["types"][score.name]["ci"]) == 3
    assert row["all-mean"]["recall"] == pytest.approx(report.all_mean, abs=1e-3)
    assert [step["share"] for step in by["M2"]["curve"]] == [0.25, 0.5, 0.75]

    # A classifier's own losses teach its heads, whatever the recipe; it is told nothing.
    assert by["WTBI"]["under_labels"]["category"] is not None
    assert set(by["WTBI"]["under_labels"]["types"]) == set(row["types"])
    assert by["WTBI"]["under_types"] is None
    assert by["WTBI"]["curve"] == []
    assert by["WTBI"]["map"]["chances"] > 0
    # What sees attributes alone has no label masks, so nothing teaches its categories.
    assert by["ASEN"]["under_labels"]["category"] is None
    assert set(by["ASEN"]["under_labels"]["types"]) == set(row["types"])
    only = by["category only"]
    assert only["under_labels"]["types"] == {}
    assert only["under_labels"]["category"] is not None
    assert only["under_types"]["all-micro"] is None
    assert only["map"]["chances"] is None

    text = markdown(data | {"commit": "abc", "machine": "here"})
    head, *_ = text.split("## ")
    line = next(line for line in head.splitlines() if line.startswith("| category only |"))
    assert line.endswith("| - | - | - | - |")
    assert "±" in line
    assert "FashionNet" in head.split("Left out")[1]
    assert "not reproduced here" in text.split("## Published: Table 1")[1]
    second = table_2(data | {"commit": "abc", "machine": "here"})
    line = next(line for line in second.splitlines() if line.startswith("| category only |"))
    category = np.mean([r["under_labels"]["category"]["recall"][1] for r in data["rows"][-2:]])
    assert line.split(" | ")[2].startswith(f"{category:.2f} ±")
    assert line.endswith("|  |  |  |  |")
    assert "| attribute only | - | - | 48.65 | 57.74 |" in second


def test_rows_that_all_want_landmarks_are_refused(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no landmarks"):
        runs_of(catalogue, tmp_path, "FashionNet").measure()


def test_head_scores_are_the_heads_on_each_images_own_condition(catalogue, tmp_path) -> None:
    dataset = load_dataset(str(catalogue))
    loaded = load_checkpoint(save(dataset, tmp_path / "run"))
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
