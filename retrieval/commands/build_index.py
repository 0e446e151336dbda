"""`retrieve build-index`: encode a gallery, store its descriptors, make them searchable."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from indexer.store.manifest import DEFAULT_RECALL, check_unlocked
from retrieval.console import Bars, print_json, say, stdout
from retrieval.options import COUNT, DEVICE, ITEMS, JSON, SHARE, DatasetOptions, filled, only_one
from training.datasets import ADAPTERS, load_dataset, load_with_schema
from training.errors import UsageError

if TYPE_CHECKING:
    from indexer.build.build import BuildReport


@dataclass(frozen=True, kw_only=True)
class Options(DatasetOptions):
    """What `retrieve build-index` is told; those of `BuildOptions` have its names."""

    checkpoint: Annotated[Path | None, "A trained model [default: that in runs/NAME]."] = None
    item_column: Annotated[str | None, ITEMS] = None
    split: Annotated[str, "train, valid, test, another that the data has, or all."] = "all"
    out: Annotated[Path | None, "Folder of the index [default: indexes/NAME]."] = None
    device: Annotated[str, DEVICE]
    runtime: Annotated[
        str,
        click.Choice(["torch", "onnx", "onnx-int8", "auto"]),
        "What encodes: auto is onnx on the CPU and torch on a GPU; onnx-int8, on the CPU, is "
        "faster and differs a little.",
    ] = "auto"
    precision: Annotated[
        str,
        click.Choice(["auto", "float32", "bfloat16"]),
        "Of the backbone by torch; auto is bfloat16 on a GPU that has it, else float32.",
    ] = "auto"
    batch_size: Annotated[int | None, COUNT, "Images at a time [default: by device]."] = None
    workers: Annotated[int | None, click.IntRange(0), "Decoding threads [default: by need]."] = None
    shard_rows: Annotated[
        int | None,
        COUNT,
        "Images a shard; an interrupted build goes on after the last whole one [default: 1024, "
        "more in a large gallery].",
    ] = None
    max_reject_rate: Annotated[float, SHARE, "Highest share of unreadable images."] = 0.1
    index_factory: Annotated[
        str | None,
        "How descriptors are searched: flat, or IVFn for n inverted lists [default: by size].",
    ] = None
    recall: Annotated[
        float,
        click.FloatRange(0, 1, min_open=True),
        "Recall@10 that inverted lists have to reach; 1 reads every descriptor.",
    ] = DEFAULT_RECALL
    limit: Annotated[int | None, COUNT, "Only the first so many images."] = None
    as_json: Annotated[bool, JSON]


@click.command("build-index")
@filled(Options)
def command(options: Options) -> int:
    """Encode a gallery once and index it.

    Interrupted, the same command goes on where it stopped; run again, it encodes only what
    changed. Broken images are skipped, counted and listed in rejects.jsonl.
    """
    name, adapter = options.name, options.name.casefold() in ADAPTERS
    short = name.casefold() if adapter else Path(name).expanduser().resolve().name
    out = options.out or Path("indexes") / short
    check_unlocked(out)  # before torch is imported, which takes longer than the answer should
    if not adapter and not Path(name).expanduser().is_dir():
        load_dataset(name, options.root)  # says what is wrong with the name
    run = options.checkpoint or _find_checkpoint(Path("runs") / short, name)
    report = _build(options, run, out)
    rate = report.encoded / report.encode_seconds if report.encode_seconds > 0 else 0.0
    if options.as_json:
        print_json(_to_json(report, run, rate))
    else:
        _print(report, rate)
    return 0


def _build(options: Options, run: Path, out: Path) -> BuildReport:
    from indexer.build.build import BuildOptions, build_index
    from retrieval.query_vector import draw_requests
    from training.checkpoint import load_checkpoint
    from training.device import choose_device, keep_freed_memory

    keep_freed_memory()
    choice = choose_device(options.device)
    given = vars(options) | {"device": choice.device, "requests": draw_requests}
    loaded = load_checkpoint(run, choice.device)
    dataset = load_with_schema(loaded.schema, options.name, options.root, options.item_column)
    rows = dataset.rows_of(options.split)[: options.limit]
    if not len(rows):
        there = ", ".join(sorted({str(s) for s in dataset.splits} - {""})) or "none"
        raise UsageError(
            f"no image in split {options.split!r}; splits of this dataset: {there}, or all"
        )
    with Bars() as progress:
        if choice.remark:
            progress.say(choice.remark)
        given["progress"] = progress
        how = BuildOptions(**{own.name: given[own.name] for own in fields(BuildOptions)})
        return build_index(dataset, rows, loaded, out, how)


def _find_checkpoint(runs: Path, name: str) -> Path:
    """The one trained model of a dataset: `runs/NAME/best`, else the only `runs/NAME/*/best`."""
    if (runs / "best/config.json").is_file():
        return runs / "best"
    found = sorted(path.parent for path in runs.glob("*/best/config.json"))
    none = (
        f"no trained model in {runs}; train one with `retrieve train --dataset {name} "
        f"--out {runs}`, or name one with --checkpoint RUN"
    )
    return only_one(found, f"models in {runs}", "--checkpoint", none)


def _to_json(report: BuildReport, run: Path, rate: float) -> dict[str, Any]:
    search = {name: getattr(report.search, name) for name in ("factory", "recall", "worst_recall")}
    found = vars(report) | {
        "index": str(report.folder),
        "checkpoint": str(run),
        "seconds": round(report.seconds, 3),
        "images_per_second": round(rate, 3),
        "search": search,
    }
    return {name: found[name] for name in found if name not in ("folder", "encode_seconds")}


def _print(report: BuildReport, rate: float) -> None:
    from indexer.search.index import in_words

    listed = f" (see {report.folder / 'rejects.jsonl'})" if report.rejected else ""
    speed = f", {rate:.1f} images/s" if report.encoded else ""
    for line in (
        f"index     {report.folder}",
        f"images    {report.images:,} ({report.encoded:,} encoded, {report.kept:,} kept)",
        f"rejected  {report.rejected:,}{listed}",
        f"time      {report.seconds:.1f} s on {report.device} by {report.runtime}{speed}",
        f"size      {report.bytes / 1e6:,.1f} MB",
        f"search    {in_words(report.search)}",
    ):
        say(line, stdout)
