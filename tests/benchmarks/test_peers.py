"""`retrieve bench peers`: every system answers as it says, and is judged as rankings are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from benchmarks.measured_rows import ShopScorer
from benchmarks.peers.command import DIAL
from benchmarks.peers.peer import FaissPeer, Peer, Question
from benchmarks.peers.postgres import PostgresPeer, add_hnsw, connect, fill_table, open_database
from benchmarks.rivals.adde import predicted_values, unit
from indexer.store.store import open_store
from retrieval.cli import _run
from retrieval.evaluation.combinations import draw_combinations, evaluate_combinations
from retrieval.evaluation.encoded_split import encode_split
from retrieval.evaluation.scorer import DescriptorScorer, Scorer
from retrieval.picture import Picture
from training.checkpoint import save_checkpoint
from training.datasets import load_dataset
from training.errors import ResourceError
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.models.m2fashion import M2Fashion
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("sleeve length", ("short", "long")),
        Attribute("trim", ("a", "b", "c"), True),
        Attribute("colour", ("red", "it's blue", "green")),
    )
)


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """A private server's, of which nothing is left; skipped where there is none."""
    with ExitStack() as stack:
        try:
            there = stack.enter_context(open_database(None))
        except ResourceError as error:
            pytest.skip(str(error))
        folder = Path(there.split()[0].removeprefix("host="))
        assert folder.is_dir()
        yield there
    assert not folder.exists()


class AtDial(Scorer):
    """A scorer that is asked with the dial at `DIAL`."""

    ranked_by = ""

    def __init__(self, own: Scorer) -> None:
        self._own = own

    def named(self, query, wanted, unwanted=(), keep=None):
        return self._own.named(query, wanted, unwanted, DIAL)


def made_gallery(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    chances = rng.random((count, SCHEMA.size), np.float32)
    embeddings = unit(rng.standard_normal((count, 12), dtype=np.float32))
    return embeddings, predicted_values(chances, SCHEMA)


def check_answers(peer: Peer, embeddings: np.ndarray, tags: np.ndarray) -> None:
    """Against a sort that is written out."""
    for row, values in enumerate([(), (6,), (0, 3), (1, 2, 6), (1, 5, 4)]):
        fits = [n for n in range(len(tags)) if all(tags[n, value] for value in values)]
        nearest = sorted(fits, key=lambda n: -float(embeddings[n] @ embeddings[row]))
        question = Question(embeddings[row], Picture(np.zeros(0), np.zeros(0), None), values)
        assert peer.ask(question, 10).tolist() == nearest[:10]
        assert 0 < len(fits) <= len(tags)


def test_faiss_finds_the_nearest_that_have_the_tags() -> None:
    embeddings, tags = made_gallery(333)
    check_answers(FaissPeer(embeddings, tags), embeddings, tags)


def test_postgres_finds_the_same(dsn: str) -> None:
    embeddings, tags = made_gallery(333)
    with connect(dsn) as connection:
        fill_table(connection, SCHEMA, embeddings, tags)
        check_answers(PostgresPeer(dsn, SCHEMA, hnsw=False), embeddings, tags)
        add_hnsw(connection)
    graph, exact = (PostgresPeer(dsn, SCHEMA, hnsw=hnsw) for hnsw in (True, False))
    check_answers(exact, embeddings, tags)  # it does not walk the graph, which is approximate
    graph._connection.execute("SET enable_seqscan = off")  # which a tiny table invites
    plans = []
    for peer in (graph, exact):
        text = "EXPLAIN " + peer._statement(()).replace("%b", "%s")
        lines = peer._connection.execute(text, [embeddings[0], 10]).fetchall()
        plans.append("\n".join(line for (line,) in lines))
    assert "embedding_idx" in plans[0]
    assert "embedding_idx" not in plans[1]
    found = graph.ask(Question(embeddings[5], Picture(np.zeros(0), np.zeros(0), None)), 10)
    assert found[0] == 5
    graph.close()
    exact.close()


def test_a_server_that_does_not_answer_is_left_out_and_said(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    with pytest.raises(ResourceError, match="PostgreSQL cannot be used"):
        with open_database(f"host={tmp_path} dbname=none"):
            pass


def test_every_system_is_measured(tmp_path: Path, capsys) -> None:
    catalogue = write_tiny_catalogue(tmp_path / "tiny", 240)
    torch.manual_seed(0)
    config = ModelConfig("small", "layer2", 4, 16, nuance=4, garment_nuance=8)
    dataset = load_dataset(str(catalogue))
    model = M2Fashion(dataset.schema, config).eval()
    save_checkpoint(tmp_path / "run", model, Preprocessing(size=32), (), {"seed": 0})
    words = ["--dataset", str(catalogue), "--checkpoint", str(tmp_path / "run"), "--rounds", "3"]
    words += ["--results", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert _run(["bench", "peers", *words, "--size", "300", "--workers", "0"], False) == 0
    (file,) = (tmp_path / "out").glob("peers-tiny-cpu-*.json")
    data = json.loads(file.read_text())
    assert file.with_suffix(".md").read_text() in capsys.readouterr().out
    quality = {row["peer"]: row for row in data["quality"]}
    costs = {row["peer"]: row for row in data["costs"]}
    assert list(quality) == [*costs, f"this engine, dial {DIAL}"]
    assert len(costs) == (4 if data["postgres"].startswith("PostgreSQL 1") else 2)
    # Judged as the scorers that other tables have, of which each is one.
    (folder,) = (tmp_path / "work/peers").glob("tiny-*")
    store = open_store(folder)
    encoded = encode_split(model, dataset, "test", Preprocessing(size=32), 0)
    part, pooled = encoded.dataset, encoded.bank.pooled
    codes = store.descriptors()
    own = DescriptorScorer(store.layout, store.schema, codes)
    shop = ShopScorer(store.schema, store.layout.chances(codes), pooled - pooled.mean(axis=0))
    combinations = draw_combinations(part, "test", 50)
    assert any(len(one.values) == 2 for one in combinations)
    for name, row in quality.items():
        scorer = AtDial(own) if "dial" in name else own if name == "this engine" else shop
        found = evaluate_combinations(part, "test", scorer, combinations)
        expected = found.same.precision_at_10, found.but.precision_at_10, found.but.keep_at_10
        assert (row["same_p10"], row["but_p10"], row["keep10"]) == pytest.approx(expected)

    width = pooled.shape[1]
    assert costs["embedding, tags, faiss flat"]["bytes"] == 300 * 4 * width + 38 * store.schema.size
    for name, row in costs.items():
        assert row["size"] == 300
        for kind, found in row["recall"].items():
            assert found == 1 or "HNSW" in name, kind
