"""`retrieve bench tagging` on a tiny catalogue with models that were never trained."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from benchmarks.insert_figures import diagrams, with_figures
from benchmarks.tables.reliability import pooled
from benchmarks.tagging import swapped_labels
from retrieval.cli import _run
from training.checkpoint import save_checkpoint
from training.datasets import load_dataset
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.schema import Attribute, Schema


def test_so_many_labels_are_swapped_and_nothing_else() -> None:
    schema = Schema((Attribute("a", ("x", "y", "z"), multi=True), Attribute("b", ("u", "v"))))
    rng = np.random.default_rng(0)
    labels = np.full((200, 5), -1, dtype=np.int8)
    labels[np.arange(200), rng.integers(0, 3, 200)] = 1
    labels[np.arange(200), rng.integers(0, 2, 200)] = 1
    labels[np.arange(200), 3 + rng.integers(0, 2, 200)] = 1
    labels[50:100, :3], labels[150:, 3:] = 0, 0
    wrong, changed = swapped_labels(labels, schema, 0.1, 1)
    assert changed.sum() == 30
    for number in range(2):
        own = schema.slice_of(number)
        moved = labels[:, own].astype(int) - wrong[:, own]
        assert ((moved != 0).sum(1) == 2 * changed[:, number]).all()
        assert (moved.sum(1) == 0).all()


def test_runs_are_pooled_bin_by_bin() -> None:
    found = pooled([[(0.1, 0.0, 10), (0.99, 1.0, 4)], [(0.12, 0.3, 30), (0.5, 0.5, 2)]])
    assert [tuple(one) for one in found] == [
        pytest.approx((0.115, 0.225, 40)),
        pytest.approx((0.5, 0.5, 2)),
        pytest.approx((0.99, 1, 4)),
    ]


@pytest.mark.parametrize("other", [False, True])
def test_a_row_a_seed(tmp_path: Path, capsys, other: bool) -> None:
    catalogue = write_tiny_catalogue(tmp_path / "tiny", 60)
    options = ["--dataset", str(catalogue), "--results", str(tmp_path), "--workers", "0"]
    for seed in range(2):
        torch.manual_seed(seed)
        names = ["colour"] if other and seed else None
        dataset = load_dataset(str(catalogue), None, names)
        model = M2Fashion(dataset.schema, ModelConfig("small", "layer2", grid=4, dim=16), 2).eval()
        sure = {own.name: [0.0] * 101 for own in dataset.schema.attributes}  # all may be
        about = ("round", "angular"), {"seed": seed, "true_chances": sure}
        save_checkpoint(tmp_path / f"{seed}", model, Preprocessing(size=32), *about)
        options += ["--checkpoint", str(tmp_path / f"{seed}")]
    code = _run(["bench", "tagging", *options, "--split", "all"], False)
    out, err = capsys.readouterr()
    if other:
        assert code == 3
        assert "was trained with other attributes" in err
        return
    assert code == 0, err
    data = json.loads((tmp_path / "tagging-tiny-small-all.json").read_text())
    assert [row["training_seed"] for row in data["rows"]] == [0, 1]
    scores = [row["tags"]["attributes"]["colour"]["accuracy"] for row in data["rows"]]
    assert (tmp_path / "tagging-tiny-small-all.md").read_text() in out
    line = next(line for line in out.splitlines() if line.startswith("| colour |"))
    assert f"| {np.mean(scores):.3f} ± {np.std(scores, ddof=1):.3f} |" in line
    assert 0 <= data["rows"][0]["errors_found"] <= 1
    for attribute in dataset.schema.attributes:
        sets = data["rows"][0]["tags"]["attributes"][attribute.name]
        assert (sets["held"], sets["size"]) == (1, len(attribute.values))
    known = data["rows"][0]["known"]
    assert list(known) == ["0%", "25%", "50%", "75%"]
    for row in data["rows"]:
        for one in row["tags"]["attributes"].values():
            apart = sum(abs(right - chance) * n for chance, right, n in one["reliability"])
            total = sum(n for *_, n in one["reliability"])
            assert apart / total == pytest.approx(one["calibration_error"], abs=1e-3)
    page = "<!-- diagram: tagging-* -->\n<!-- end -->"
    assert "](images/tagging-tiny-small-all.svg)\n" in with_figures(page, tmp_path)
    ((name, drawn),) = diagrams("tagging-*", tmp_path).items()
    assert name == "tagging-tiny-small-all.svg"
    dots = ElementTree.fromstring(drawn).findall(".//{http://www.w3.org/2000/svg}circle")
    both = [
        pooled([row["tags"]["attributes"][own.name]["reliability"] for row in data["rows"]])
        for own in dataset.schema.attributes
    ]
    assert len(dots) == sum(map(len, both))
    blind, told = "heads, nothing known", "heads, told what is known"
    assert known["0%"][blind] == known["0%"][told]
