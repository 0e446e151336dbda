"""`retrieve build-index`: encode a gallery, store its descriptors, make them searchable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.index_choice import DEFAULT_RECALL
from indexer.lock import check_unlocked
from retrieval.build_progress import BuildProgress
from retrieval.console import print_json, stderr, stdout
from retrieval.dataset_options import dataset_options, item_option
from retrieval.printable import printable
from retrieval.terminable import terminable
from training.datasets import ADAPTERS, load_dataset, load_with_schema
from training.errors import UsageError

if TYPE_CHECKING:
    from indexer.build import BuildOptions, BuildReport
    from training.datasets.dataset import Dataset


@click.command("build-index")
@dataset_options
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="A trained model [default: the one in runs/NAME].",
)
@item_option
@click.option(
    "--split",
    default="all",
    show_default=True,
    help="train, valid, test, another that the data has, or all.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the index [default: indexes/NAME]."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--runtime",
    type=click.Choice(["torch", "onnx", "onnx-int8", "auto"]),
    default="torch",
    show_default=True,
    help="What encodes; on the CPU onnx is faster and onnx-int8, which differs a little, the "
    "fastest; both need the [onnx] extra.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Of the backbone by torch; auto is bfloat16 on a GPU that has it, else float32.",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), help="Images at a time [default: by device]."
)
@click.option(
    "--workers", type=click.IntRange(min=0), help="Decoding processes [default: by need]."
)
@click.option(
    "--shard-rows",
    type=click.IntRange(min=1),
    help="Images a shard; an interrupted build goes on after the last whole one [default: 1024, "
    "more in a large gallery].",
)
@click.option(
    "--max-reject-rate",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Highest share of unreadable images.",
)
@click.option(
    "--index-factory",
    metavar="STRING",
    help="How descriptors are searched: flat, or IVFn for n inverted lists [default: by size].",
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    default=DEFAULT_RECALL,
    show_default=True,
    help="Recall@10 that inverted lists have to reach; 1 reads every descriptor.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many images.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    name: str,
    root: Path | None,
    checkpoint: Path | None,
    item_column: str | None,
    split: str,
    out: Path | None,
    device: str,
    runtime: str,
    precision: str,
    batch_size: int | None,
    workers: int | None,
    shard_rows: int | None,
    max_reject_rate: float,
    index_factory: str | None,
    recall: float,
    limit: int | None,
    as_json: bool,
) -> int:
    """Encode a gallery once and index it.

    Interrupted, the same command goes on where it stopped; run again, it encodes only what
    changed. Broken images are skipped, counted and listed in rejects.jsonl.
    """
    short = _short_name(name)
    out = Path("indexes") / short if out is None else out
    check_unlocked(out)  # before torch is imported, which takes longer than the answer should
    if name.casefold() not in ADAPTERS and not Path(name).expanduser().is_dir():
        load_dataset(name, root)  # says what is wrong with the name
    run = _find_checkpoint(short, name) if checkpoint is None else checkpoint

    from indexer.build import BuildOptions

    options = BuildOptions(
        batch_size=batch_size,
        workers=workers,
        shard_rows=shard_rows,
        max_reject_rate=max_reject_rate,
        runtime=runtime,
        precision=precision,
        index_factory=index_factory,
        recall=recall,
    )
    with terminable("run the same command again to go on"):
        report = _build(name, root, item_column, run, split, limit, out, device, options)
    if as_json:
        print_json(_to_json(report, run))
    else:
        _print(report)
    return 0


def _build(
    name: str,
    root: Path | None,
    item_column: str | None,
    run: Path,
    split: str,
    limit: int | None,
    out: Path,
    device: str,
    options: BuildOptions,
) -> BuildReport:
    from indexer.build import build_index
    from indexer.device import choose_device
    from retrieval.drawn_requests import draw_requests
    from training.allocator import keep_freed_memory
    from training.checkpoint import load_checkpoint

    keep_freed_memory()
    choice = choose_device(device)
    loaded = load_checkpoint(run, choice.device)
    dataset = load_with_schema(loaded.schema, name, root, item_column)
    rows = _rows(dataset, split)[:limit]
    with BuildProgress(stderr) as progress:
        if choice.remark:
            progress.say(choice.remark)
        chosen = replace(options, device=choice.device, progress=progress, requests=draw_requests)
        return build_index(dataset, rows, loaded, out, chosen)


def _short_name(name: str) -> str:
    """What runs/ and indexes/ call a dataset: the adapter's name, or the folder's."""
    return (
        name.casefold() if name.casefold() in ADAPTERS else Path(name).expanduser().resolve().name
    )


def _find_checkpoint(short: str, name: str) -> Path:
    """The one trained model of a dataset: `runs/NAME/best`, else the only `runs/NAME/*/best`."""
    runs = Path("runs") / short
    direct = runs / "best" / "config.json"
    if direct.is_file():
        return direct.parent
    found = sorted(path.parent for path in runs.glob("*/best/config.json"))
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(str(path) for path in found)
        raise UsageError(f"{len(found)} models in {runs}; choose with --checkpoint: {choices}")
    raise UsageError(
        f"no trained model in {runs}; train one with `retrieve train --dataset {name} "
        f"--out {runs}`, or name one with --checkpoint RUN"
    )


def _rows(dataset: Dataset, split: str) -> Any:
    rows = dataset.rows_of(split)
    if not len(rows):
        there = ", ".join(sorted({str(s) for s in dataset.splits} - {""})) or "none"
        raise UsageError(f"no image in split {split!r}; splits of this dataset: {there}, or all")
    return rows


def _to_json(report: BuildReport, run: Path) -> dict[str, Any]:
    return {
        "index": str(report.folder),
        "dataset": report.dataset,
        "checkpoint": str(run),
        "device": report.device,
        "runtime": report.runtime,
        "listed": report.listed,
        "images": report.images,
        "rejected": report.rejected,
        "encoded": report.encoded,
        "kept": report.kept,
        "seconds": round(report.seconds, 3),
        "images_per_second": round(_rate(report), 3),
        "bytes": report.bytes,
        "search": {
            "factory": report.search.factory,
            "recall": report.search.recall,
            "worst_recall": report.search.worst_recall,
        },
    }


def _rate(report: BuildReport) -> float:
    return report.encoded / report.encode_seconds if report.encode_seconds > 0 else 0.0


def _print(report: BuildReport) -> None:
    from indexer.search import in_words

    rate = f", {_rate(report):.1f} images/s" if report.encoded else ""
    lines = [
        f"index     {report.folder}",
        f"images    {report.images:,} ({report.encoded:,} encoded, {report.kept:,} kept)",
        f"rejected  {report.rejected:,}"
        + (f" (see {report.folder / 'rejects.jsonl'})" if report.rejected else ""),
        f"time      {report.seconds:.1f} s on {report.device} by {report.runtime}{rate}",
        f"size      {report.bytes / 1e6:,.1f} MB",
        f"search    {in_words(report.search)}",
    ]
    for line in lines:
        stdout.print(printable(line), markup=False, soft_wrap=True)
