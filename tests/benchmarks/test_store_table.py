"""`retrieve bench store` with models that were never trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from benchmarks.named_runs import named_run
from benchmarks.split_images import who_asks
from benchmarks.storage_forms import FORMS, bytes_an_image
from benchmarks.store_table import markdown
from indexer.quantise import dequantise_numpy, quantise
from retrieval.cli import _run
from retrieval.evaluation.attribute_map import evaluate_attributes
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import RetrievalList, RetrievalProtocol
from training.decoding import read_batches
from training.errors import UsageError
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.preprocessing import Preprocessing

ENTRIES = RetrievalList(np.array([0]), np.array([0]), np.array([0]))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalogue(tmp_path_factory.mktemp("tiny") / "tiny", 60)


def save(catalogue: Path, folder: Path, grid: int, dim: int) -> Path:
    torch.manual_seed(grid)
    model = M2Fashion(
        load_dataset(str(catalogue)).schema, ModelConfig("small", "layer2", grid, dim)
    )
    save_checkpoint(folder, model.eval(), Preprocessing(size=32), (), {"seed": 0})
    return folder


def bench(catalogue: Path, out: Path, *options: str) -> int:
    arguments = ["--dataset", str(catalogue), "--results", str(out), "--workers", "0"]
    return _run(["bench", "store", *arguments, "--rounds", "1", *options], False)


def test_rows_are_those_of_the_formulas(catalogue: Path, tmp_path: Path, capsys) -> None:
    runs = {"a": save(catalogue, tmp_path / "a", 2, 16), "b": save(catalogue, tmp_path / "b", 4, 8)}
    options = [word for name, run in runs.items() for word in ("--checkpoint", f"{name}={run}")]
    assert bench(catalogue, tmp_path / "out", *options, "--json") == 0
    data = json.loads((tmp_path / "out/store-tiny-small.json").read_text())
    assert json.loads(capsys.readouterr().out) == data
    assert len(data["rows"]) == 2 * len(FORMS) * 2
    by_key = {(r["model"], r["form"], r["keys"]): r for r in data["rows"]}
    location, image = "int8, a scale a location", "int8, a scale an image"
    for name, cells, dim in (("a", 4, 16), ("b", 16, 8)):
        sizes = {form: by_key[name, form, "recomputed"]["bytes_an_image"] for _, form, _ in by_key}
        assert sizes == {
            "float32": 4 * cells * dim,
            "fp16": 2 * cells * dim,
            location: cells * dim + 4 * cells,
            image: cells * dim + 4,
        }
        for form, size in sizes.items():
            assert by_key[name, form, "stored"]["bytes_an_image"] == 2 * size
        for keys in ("stored", "recomputed"):
            assert by_key[name, "float32", keys]["cosine_min"] == pytest.approx(1, abs=1e-5)
            assert by_key[name, location, keys]["cosine_min"] > 0.999
        assert all(r["seconds_per_10000"] > 0 for r in data["rows"])

    # MAP of the engine's way, worked out by hand: queries from float32 maps, gallery from int8.
    loaded = load_checkpoint(runs["a"])
    dataset = load_dataset(str(catalogue))
    dataset = dataset.subset(dataset.rows_of("valid"))
    (batch,) = read_batches(
        dataset.root, dataset.paths, [list(range(len(dataset)))], loaded.preprocessing, 0
    )
    with torch.inference_mode():
        exact = loaded.model.features(
            loaded.preprocessing.normalise(torch.from_numpy(batch.pixels))
        )
        read_back = [
            torch.from_numpy(dequantise_numpy(quantise(x)).transpose(0, 2, 1).copy()).view_as(exact)
            for x in (exact, loaded.model.keys(exact))
        ]

    def embed(maps, keys):
        def run(condition, rows):
            state = torch.from_numpy(condition).float()[None]
            with torch.inference_mode():
                z = loaded.model.attend(maps, state, keys)
            return z.numpy()[rows]

        return run

    report = evaluate_attributes(
        dataset, "valid", "type", embed(*read_back), embed_queries=embed(exact, None)
    )
    assert by_key["a", location, "stored"]["map"] == pytest.approx(report.all.map, abs=0.05)
    markdown = (tmp_path / "out/store-tiny-small.md").read_text()
    assert f"| a | 16 | 2 x 2 | {location} | stored | 160 |" in markdown


def test_the_markdown_tells_who_asked(catalogue: Path) -> None:
    dataset = load_dataset(str(catalogue))
    row = {"model": "a", "dim": 8, "grid": [2, 2], "form": "float32", "keys": "stored"}
    row |= {"bytes_an_image": 1, "map": 50.0, "map_ci": [49.0, 51.0], "seconds_per_10000": 1.0}
    row |= {"cosine_mean": 1.0, "cosine_min": 1.0}
    data = {"images": 9, "dataset": "tiny", "split": "valid", "rounds": 1, "machine": "m"}
    data["rows"] = [row]
    lists = replace(dataset, protocols={"valid": RetrievalProtocol(ENTRIES, ENTRIES)})
    assert "each querying all others" in markdown(data)
    assert markdown(data | {"queries": who_asks(dataset, "valid")}) == markdown(data)
    published = markdown(data | {"queries": who_asks(lists, "valid")})
    assert "(valid), queries and candidates of the published lists: the query" in published
    assert who_asks(lists, "test") == who_asks(dataset, "test")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_forms_read_back_what_they_stored(form) -> None:
    maps = torch.randn(3, 8, 2, 3, generator=torch.Generator().manual_seed(0))
    maps[:, :, 0, 0] *= 0.01  # a quiet location
    back = form.round(maps)
    assert back.shape == maps.shape
    steps = {
        "float32": torch.zeros(1),
        "fp16": maps.abs() * 2**-10,
        "int8, a scale a location": maps.abs().amax(1, keepdim=True) / 127,
        "int8, a scale an image": maps.abs().amax((1, 2, 3), keepdim=True) / 127,
    }[form.name]
    assert ((back - maps).abs() <= 0.51 * steps + 1e-7).all()
    stored = form.store(maps)
    assert bytes_an_image(stored) * 3 == sum(np.asarray(part).nbytes for part in stored)


def test_names_of_runs() -> None:
    assert [named_run(t) for t in ("a=x/y", "b=c=d")] == [("a", Path("x/y")), ("b", Path("c=d"))]
    for wrong in ("a", "=x", "a="):
        with pytest.raises(UsageError, match="NAME=RUN"):
            named_run(wrong)
