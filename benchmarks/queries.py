"""Whether a query returns what it says: hits checked against the gallery's labels.

    retrieve bench queries --dataset data/fashion-products --index INDEX --attrs check,shirts

Each list of values is asked with test pictures that have them (`same`) and with test pictures that
lack every one (`but`). A hit counts if it is known to have all the values. As in EVALUATION's
combinations only images of which that is known are candidates; hits of which it is not are passed
over, and their share of the first ten is told. Writes the figures to `benchmarks/results/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.machine import commit_name, machine_name
from benchmarks.tables.keys import data_hash
from benchmarks.write_results import RESULTS, write_results
from retrieval.engine import Engine
from retrieval.request import Request
from training.datasets import load_dataset
from training.datasets.dataset import Dataset

K = 10


@click.command("queries")
@click.option("--dataset", "name", required=True, help="Name or folder of the dataset.")
@click.option("--index", required=True, type=click.Path(path_type=Path), help="Of its test split.")
@click.option("--attrs", multiple=True, required=True, help="Values; may be repeated.")
@click.option("--most", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def command(name: str, index: Path, attrs: tuple[str, ...], most: int, results: Path) -> None:
    """Ask each list of values with pictures that have them and with pictures that lack them."""
    dataset = load_dataset(name)
    engine = Engine.open(index)
    backbone = engine.model.config.backbone
    data = {
        "dataset": dataset.name,
        "data": data_hash(dataset),
        "backbone": backbone,
        "checkpoint_hash": engine.store.manifest.identity.model,
        "index": engine.store.manifest.content,
        "images": len(engine.store),
        "most": most,
        "commit": commit_name(),
        "machine": machine_name(engine.device),
        "attrs": {text: check_queries(dataset, engine, text, most) for text in attrs},
    }
    write_results(results, f"queries-{dataset.name}-{backbone}", data, markdown(data))
    click.echo(markdown(data))


def check_queries(dataset: Dataset, engine: Engine, text: str, most: int) -> dict[str, Any]:
    """All-values precision@10 of one list of values, by the gallery's labels.

    Args:
        dataset: where the query pictures come from.
        engine: the gallery.
        text: names of values, separated by commas.
        most: query pictures of each kind, drawn with a fixed seed.

    Returns:
        `relevant` images in the gallery; for `same` and `but` the number of queries, the mean share
        of the first ten candidates (the query itself left out) that have all the values, and the
        mean share of the first ten hits of which that is not known. A share is None where nothing
        can be measured: no query of that kind, or for the precision no candidate.
    """
    names = text.split(",")
    wanted = [dataset.schema.value(n) for n in names]
    rows = dataset.rows_of("test")
    states = dataset.labels[rows][:, wanted]
    labels = engine.store.states([engine.schema.value(n) for n in names])
    known, right = (labels != 0).all(axis=1), (labels == 1).all(axis=1)
    out: dict[str, Any] = {"relevant": int(right.sum())}
    for kind, where in (("same", (states == 1).all(axis=1)), ("but", (states == -1).all(axis=1))):
        queries = rows[where]
        if len(queries) > most:
            queries = np.random.default_rng(0).choice(queries, most, replace=False)
        precisions, unknown = [], []
        for row in queries.tolist():
            path = dataset.root.resolve() / dataset.paths[row]  # as the index has it
            hits = engine.query(Request(path, names, top_k=len(engine.store)))
            found = [hit.row for hit in hits if hit.path != path]
            candidates = [n for n in found if known[n]]
            if found:
                unknown.append(1 - known[found[:K]].mean())
            if candidates:
                precisions.append(right[candidates[:K]].mean())
        out[kind] = {
            "queries": len(queries),
            "precision_at_10": round(float(np.mean(precisions)), 4) if precisions else None,
            "unknown_at_10": round(float(np.mean(unknown)), 4) if unknown else None,
        }
    return out


def markdown(data: dict[str, Any]) -> str:
    """The figures as Markdown, for the README."""
    lines = [
        "| values asked for | in the gallery | pictures that have them, precision@10 | "
        "pictures that lack them, precision@10 |",
        "|---|---:|---:|---:|",
    ]
    for text, found in data["attrs"].items():
        cells = [
            "-" if found[k]["precision_at_10"] is None else f"{found[k]['precision_at_10']:.2f}"
            for k in ("same", "but")
        ]
        lines.append(f"| `{text}` | {found['relevant']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command()
