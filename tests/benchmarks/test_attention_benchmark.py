"""`retrieve bench attention` from a checkpoint whose attention is even, and one that is not."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.attention import measure
from benchmarks.wardrobe.garment import ATTRIBUTES, wardrobe_schema
from retrieval.cli import _run
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import DataError
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.schema import Attribute, Schema


def save(folder: Path, spatial: str) -> Path:
    torch.manual_seed(0)
    config = ModelConfig("small", "layer3", grid=4, dim=16, spatial=spatial)
    model = M2Fashion(wardrobe_schema(), config).eval()
    if spatial != "none":
        model.spatial.query.data *= 1000  # untrained attention is nearly even
    save_checkpoint(folder, model, Preprocessing(size=48), (), {"dataset": "wardrobe", "seed": 0})
    return folder


def bench(folder: Path, *options: object) -> dict:
    arguments = ["--results", str(folder / "out"), *map(str, options)]
    assert _run(["bench", "attention", "--checkpoint", str(folder), *arguments], False) == 0
    (written,) = (folder / "out").glob("*.json")
    assert written.name == "attention-wardrobe-small.json"
    return json.loads(written.read_text())


def test_even_attention_scores_chance(tmp_path, capsys):
    data = bench(save(tmp_path, "none"), "--images", 30)
    assert [row["attribute"] for row in data["rows"]] == list(ATTRIBUTES)
    for row in data["rows"]:
        assert row["inside"] == pytest.approx(row["area"], abs=2e-5)
        assert row["ratio"] == pytest.approx(1, abs=1e-3)
    located = {row["attribute"] for row in data["rows"] if row["located"]}
    assert located == {"button", "length", "collar-shape", "sleeve-length", "sleeve-shape"}
    assert data["located"]["ratio"] == pytest.approx(1, abs=1e-3)
    markdown = (tmp_path / "out/attention-wardrobe-small.md").read_text()
    assert markdown in capsys.readouterr().out
    assert "| collar-shape |" in markdown


def test_the_seed_draws_other_garments_and_repeats(tmp_path):
    folder = save(tmp_path, "temperature")
    one, again, other = (bench(folder, "--images", 30, "--seed", s) for s in (5, 5, 6))
    assert one == again
    assert one["rows"] != other["rows"]
    assert any(abs(row["ratio"] - 1) > 0.05 for row in one["rows"])


def test_a_model_of_other_attributes_is_refused(tmp_path):
    model = M2Fashion(Schema((Attribute("usage", ("casual",)),)), ModelConfig("small", "layer3"))
    save_checkpoint(tmp_path, model.eval(), Preprocessing(size=48), (), {})
    with pytest.raises(DataError, match="usage"):
        measure(load_checkpoint(tmp_path), 2, 0)


def test_results_that_cannot_be_written(tmp_path, capsys):
    folder = save(tmp_path, "none")
    (tmp_path / "file").write_text("")
    arguments = ["--images", "2", "--results", str(tmp_path / "file/out")]
    assert _run(["bench", "attention", "--checkpoint", str(folder), *arguments], False) == 6
    assert str(tmp_path) in capsys.readouterr().err
