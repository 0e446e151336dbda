"""`retrieve bench runtimes` with a model that was never trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from benchmarks.common import vector_instructions
from benchmarks.runtimes import BASE, read_split, to_rows
from retrieval.cli import _run
from retrieval.evaluation.attribute_map import evaluate_attributes
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.descriptor import GARMENT
from training.export import export_checkpoint
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion


def test_every_runtime_is_measured(tmp_path: Path, capsys) -> None:
    catalogue = write_tiny_catalogue(tmp_path / "tiny", 60)
    torch.manual_seed(0)
    config = ModelConfig("small", "layer2", 4, 16, nuance=0)  # `--like` by chances alone
    model = M2Fashion(load_dataset(str(catalogue)).schema, config)
    save_checkpoint(tmp_path / "run", model.eval(), Preprocessing(size=32), (), {"seed": 0})
    shown = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), np.uint8)
    export_checkpoint(load_checkpoint(tmp_path / "run"), shown)
    arguments = ["--dataset", str(catalogue), "--checkpoint", str(tmp_path / "run")]
    arguments += ["--results", str(tmp_path / "out"), "--rounds", "2"]
    arguments += ["--images", "12", "--split", "train", "--batch-size", "5"]
    assert _run(["bench", "runtimes", *arguments], False) == 0
    stem = f"runtimes-tiny-small-{vector_instructions().casefold()}"
    data = json.loads((tmp_path / f"out/{stem}.json").read_text())
    markdown = (tmp_path / f"out/{stem}.md").read_text()
    assert markdown in capsys.readouterr().out
    rows = {row["runtime"]: row for row in data["rows"]}
    assert list(rows)[:3] == [BASE, "onnx", "onnx-int8"]
    assert (data["images"], data["batch_size"], rows[BASE]["ratio"]) == (12, 5, 1.0)
    assert rows[BASE]["loss"] == 0
    assert abs(rows["onnx"]["loss"]) < 1  # float32 by another way: equal but for close calls
    assert all(0 < row["map"] <= 100 for row in rows.values())
    assert "| onnx-int8 |" in markdown

    # The base's MAP anew: the query vector's formula spelled out, on bytes that are unpacked.
    loaded = load_checkpoint(tmp_path / "run")
    part, raw = read_split(load_dataset(str(catalogue)), "train", loaded, 12)
    layout = model.layout
    with torch.inference_mode():
        pixels = normalise(torch.from_numpy(raw), Preprocessing(size=32))
        chances, nuance = (part.numpy() for part in model.describe(model.trunk(pixels)))
        stored = layout.pack(chances, nuance)
    report = evaluate_attributes(
        part,
        "train",
        "type",
        lambda condition, rows: stored[rows][:, layout.plain] / 255 * (condition == 1),
        embed_queries=lambda condition, rows: layout.chances(stored)[rows],
    )
    assert layout.groups == ((GARMENT, layout.nuance),)
    assert rows[BASE]["map"] == pytest.approx(report.all.map, abs=0.01)


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    class Report:
        class all:
            map = 50.0

            class ci:
                low, high = 49.0, 51.0

    rates = {BASE: [10.0, 20.0, 5.0], "onnx": [20.0, 30.0, 20.0]}
    rows = to_rows(rates, dict.fromkeys(rates, Report))
    assert rows[1]["ratio"] == pytest.approx(2.0)  # of 2, 1.5 and 4
    assert rows[1]["images_per_second"] == 20
