"""`retrieve bench queries` on a gallery whose own pictures ask."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from benchmarks.queries import check_queries
from indexer.build import BuildOptions, build_index
from retrieval.cli import _run
from retrieval.engine import Engine
from retrieval.request import Request
from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.preprocessing import Preprocessing

TEXT = "red,disc"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny`, a catalogue, `link` to it, and `index`, of its test split by an untrained model."""
    folder = tmp_path_factory.mktemp("queries")
    dataset = load_dataset(str(write_tiny_catalogue(folder / "tiny", 180)))
    (folder / "link").symlink_to("tiny")
    torch.manual_seed(0)
    model = M2Fashion(dataset.schema, ModelConfig("small", "layer2", 2, 16))
    save_checkpoint(folder / "run", model.eval(), Preprocessing(size=32), (), {"seed": 0})
    checkpoint = load_checkpoint(folder / "run")
    options = BuildOptions(workers=0)
    build_index(dataset, dataset.rows_of("test"), checkpoint, folder / "index", options=options)
    return folder


def by_hand(dataset: Dataset, engine: Engine) -> float:
    """Mean precision@10 of all test pictures that have both values; every label is known."""
    rows = dataset.rows_of("test")
    wanted = [dataset.schema.value(name) for name in TEXT.split(",")]
    right = (dataset.labels[:, wanted] == 1).all(axis=1)
    shares = []
    for row in rows[right[rows]]:
        hits = engine.query(
            Request(dataset.root / dataset.paths[row], TEXT.split(","), top_k=len(rows))
        )
        others = [rows[hit.row] for hit in hits if rows[hit.row] != row]
        shares.append(right[others[:10]].mean())
    return float(np.mean(shares))


@pytest.mark.parametrize("spelled", ["tiny", "link", "./tiny/../tiny"])
def test_the_query_is_no_hit_however_the_folder_is_spelled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    monkeypatch.chdir(folder)
    dataset, engine = load_dataset(spelled), Engine.open(folder / "index", "cpu")
    assert not dataset.root.is_absolute()
    found = check_queries(dataset, engine, TEXT, 20)
    assert found["same"]["precision_at_10"] == pytest.approx(by_hand(dataset, engine), abs=1e-4)
    assert found["same"]["queries"] == found["relevant"] > 1


def test_what_cannot_be_measured_is_none(folder: Path) -> None:
    dataset, engine = load_dataset(str(folder / "tiny")), Engine.open(folder / "index", "cpu")
    unknown = engine.store.labels() * 0
    engine.store.states = lambda values: unknown[:, values]  # nothing is known of the gallery
    found = check_queries(dataset, engine, TEXT, 20)
    assert found["same"]["precision_at_10"] is None
    assert found["same"]["unknown_at_10"] == 1
    nobody = replace(dataset, labels=dataset.labels * 0)
    assert check_queries(nobody, engine, TEXT, 20)["but"] == {
        "queries": 0,
        "precision_at_10": None,
        "unknown_at_10": None,
    }


def test_the_result_tells_what_it_rests_on(folder: Path) -> None:
    arguments = ["--dataset", folder / "tiny", "--index", folder / "index", "--attrs", TEXT]
    out = folder / "out"
    assert _run(["bench", "queries", *map(str, arguments), "--results", str(out)], False) == 0
    data = json.loads((out / "queries-tiny-small.json").read_text())
    assert {"data", "commit", "machine", "index"} <= set(data)
    assert data["checkpoint_hash"] == load_checkpoint(folder / "run").hash
    assert list(data["attrs"]) == [TEXT]
    assert (
        f"| `{TEXT}` | {data['attrs'][TEXT]['relevant']} |"
        in (out / "queries-tiny-small.md").read_text()
    )
