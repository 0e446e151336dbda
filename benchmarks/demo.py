"""`make demo`: the main job on a bare machine, through the commands that a user types.

Renders garments to train on and a gallery of garments never seen in training, trains a model from
scratch, indexes the gallery, measures it against chance, and asks for v-necklines with floral
prints: once with a picture that has both, once with one that lacks both. Leaves
`demo/report.json`, `demo/query.png` and `demo/query-but.png`.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import click

from benchmarks.common import Data, retrieve, table

CONFIG = Path(__file__).with_name("demo.toml")
NAMES = ("v-neckline", "floral")


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@click.option("--train-count", type=click.IntRange(min=200), default=7000, show_default=True)
@click.option("--gallery-count", type=click.IntRange(min=100), default=2000, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Fewer, to try it out.")
@click.option("--seed", type=click.IntRange(0, 2**30 - 1), default=0, show_default=True)
def command(out: Path, train_count: int, gallery_count: int, epochs: int | None, seed: int) -> None:
    """Render, train, index, query and evaluate; print every command that is run."""
    started = time.monotonic()
    _clear(out)
    train, gallery, run, index = (out / n for n in ("wardrobe", "gallery", "run", "index"))
    size = ["--size", "96", "--workers", "2"]
    retrieve("wardrobe", train, "--count", train_count, "--seed", 2 * seed, *size)
    retrieve("wardrobe", gallery, "--count", gallery_count, "--seed", 2 * seed + 1, *size)
    limit = [] if epochs is None else ["--epochs", epochs]
    options = ["--config", CONFIG, "--seed", seed, *limit]
    retrieve("train", "--dataset", train, *options, "--out", run)
    retrieve("build-index", "--dataset", gallery, "--checkpoint", run, "--out", index)
    for picture, sheet in zip(query_pictures(train), ("query.png", "query-but.png"), strict=True):
        names = ["--attrs", ",".join(NAMES)]
        retrieve("query", picture, *names, "--index", index, "--sheet", out / sheet)

    measure = ["--checkpoint", run, "--out", out, "--floor", "--split", "all"]
    retrieve("evaluate", "--dataset", gallery, *measure)
    report = json.loads(next(out.glob("*-all-type.json")).read_text())
    same, but = report["combinations"]["same"], report["combinations"]["but"]
    summary = {
        "map": report["all"]["map"],
        "chance": report["all"]["chance"],
        "same_precision_at_10": same["precision_at_10"],
        "but_precision_at_10": but["precision_at_10"],
        "keep_at_10": but["keep_at_10"],
        "seconds": round(time.monotonic() - started, 1),
        "attributes": report["attributes"],
        "likeness": report["likeness"],
    }
    (out / "report.json").write_text(json.dumps(summary, indent=2) + "\n")
    (out / "report.md").write_text(markdown(summary) + "\n")
    click.echo(f"\n{markdown(summary)}\n")
    click.echo(f"left in {out}: report.json, report.md, query.png, query-but.png")
    click.echo(f"look for yourself: retrieve serve {index}  (pip install -e '.[serve]')")


def markdown(summary: Data) -> str:
    """The figures as Markdown, for the README."""
    attributes, alike = summary["attributes"], summary["likeness"]
    rows = [
        [title, *(f"{own[key]:.2f}" for own in (*attributes.values(), summary))]
        for title, key in (("M2Fashion", "map"), ("chance", "chance"))
    ]
    mrr = {name: f"{own['mrr']:.3f} ({own['hard_mrr']:.3f})" for name, own in (alike or {}).items()}
    return table(
        ["rendered gallery, type mode, MAP %", *attributes, "All"],
        rows,
        "All-values precision@10 over combinations of two and three values: "
        f"{summary['same_precision_at_10']:.2f} for pictures that have them, "
        f"{summary['but_precision_at_10']:.2f} for pictures that lack at least one. "
        f"{summary['seconds']:.0f} seconds in all.",
        "The first other picture of the same garment among all of the gallery, mean reciprocal "
        f"rank over {alike['query']['queries']} pictures (hard half): {mrr['query']} without "
        f"names, {mrr['kept']} by the likeness that is kept when values are named, "
        f"{mrr['floor']} by pooled features."
        if alike
        else "",
    )


def _clear(out: Path) -> None:
    """Start with an empty folder; only what an earlier demo left is removed."""
    mark = out / ".demo"
    if out.exists() and any(out.iterdir()) and not mark.is_file():
        raise SystemExit(f"{out} holds something that is not a demo's; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mark.touch()


def query_pictures(folder: Path) -> tuple[Path, Path]:
    """Two pictures of the test split: one that has the named values, one that has none of them.

    Neither was trained on, nor is in the gallery.
    """
    from training.datasets import load_dataset

    dataset = load_dataset(str(folder))
    rows = dataset.rows_of("test")
    states = dataset.labels[rows][:, [dataset.schema.value(name) for name in NAMES]]
    has, lacks = rows[(states == 1).all(axis=1)], rows[(states == -1).all(axis=1)]
    if not len(has) or not len(lacks):
        raise SystemExit(f"no test picture in {folder} with and without {NAMES}; render more")
    return dataset.root / dataset.paths[has[0]], dataset.root / dataset.paths[lacks[0]]


if __name__ == "__main__":
    command()
