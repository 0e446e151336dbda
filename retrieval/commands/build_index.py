"""`retrieve build-index`: encode a gallery, store its descriptors, make them searchable."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import numpy as np
from numpy.typing import NDArray

from indexer.store.manifest import (
    DEFAULT_RECALL,
    MANIFEST_NAME,
    check_unlocked,
    read_manifest,
)
from retrieval.console import Bars, print_json, say, stdout
from retrieval.options import COUNT, DEVICE, JSON, SHARE, DatasetOptions, filled, only_one
from training.datasets import ADAPTERS, load_dataset
from training.datasets.dataset import Dataset
from training.datasets.labels import find_root
from training.datasets.locate import folder_name
from training.errors import CorruptStoreError, DataError, UsageError

if TYPE_CHECKING:
    from indexer.build.build import BuildOptions, BuildReport
    from indexer.build.parts import Part
    from indexer.progress import Progress


@dataclass(frozen=True, kw_only=True)
class GalleryOptions(DatasetOptions):
    """What is indexed, and where; those of `BuildOptions` have its names."""

    checkpoint: Annotated[Path | None, "A trained model [default: that in runs/NAME]."] = None
    split: Annotated[str, "train, valid, test, another that the data has, or all."] = "all"
    out: Annotated[Path | None, "Folder of the index [default: indexes/NAME]."] = None
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

    @property
    def folder(self) -> Path:
        """Of the index."""
        return self.out or Path("indexes") / self._short

    @property
    def run(self) -> Path:
        """The model; UsageError if it is not clear which."""
        return self.checkpoint or _find_checkpoint(Path("runs") / self._short, self.name)

    @property
    def _short(self) -> str:
        adapter = self.name.casefold() in ADAPTERS
        return self.name.casefold() if adapter else folder_name(Path(self.name))

    def check(self, written: Path) -> None:
        """Find, before torch is imported, which takes longer than the answer should, that another
        process writes to a folder, or that the index is another dataset's."""
        check_unlocked(written)
        adapter = self.name.casefold() in ADAPTERS
        if not adapter and not Path(self.name).expanduser().is_dir():
            load_dataset(self.name, self.root)  # says what is wrong with the name
        if self.out is None:
            root = find_root(self.name, self.root) if adapter else Path(self.name).expanduser()
            _check_origin(self.folder, root)

    def rows(self, dataset: Dataset) -> NDArray[np.int64]:
        """Which images are indexed; UsageError if none is."""
        rows = dataset.rows_of(dataset.split_called(self.split))[: self.limit]
        if not len(rows):
            there = ", ".join(sorted({str(s) for s in dataset.splits} - {""})) or "none"
            raise UsageError(
                f"no image in split {self.split!r}; splits of this dataset: {there}, or all"
            )
        return rows

    def how(self, progress: Progress, **more: str) -> BuildOptions:
        """The options of a build; `more` replaces what was given."""
        from indexer.build.build import BuildOptions
        from retrieval.query_vector import draw_requests

        given = vars(self) | more | {"progress": progress, "requests": draw_requests}
        names = {own.name for own in fields(BuildOptions)}
        return BuildOptions(**{name: value for name, value in given.items() if name in names})


@dataclass(frozen=True, kw_only=True)
class Options(GalleryOptions):
    """What `retrieve build-index` is told."""

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
    part: Annotated[
        str | None, "Encode only this part, such as 3/16, for `retrieve merge-index`."
    ] = None
    ray: Annotated[
        str | None, "Encode by a Ray cluster: its address, auto, or local for this machine."
    ] = None


@click.command("build-index")
@filled(Options)
def command(options: Options) -> int:
    """Encode a gallery once and index it.

    Interrupted, the same command goes on where it stopped; run again, it encodes only what
    changed. Broken images are skipped, counted and listed in rejects.jsonl.
    On many machines: --ray ADDRESS; or --part 1/16 to 16/16, each anywhere, then merge-index.
    """
    part = None
    if options.part is not None:
        if options.ray is not None:
            raise UsageError("--part and --ray are two ways to share the work; give one")
        from indexer.build.parts import Part

        part = Part.parse(options.part)
    options.check(part.folder(options.folder) if part else options.folder)
    return tell(options, _build(options, part))


def _build(options: Options, part: Part | None) -> BuildReport:
    from indexer.build.build import build_index
    from indexer.build.parts import build_part
    from indexer.build.shards import plan_shards
    from training.checkpoint import load_checkpoint
    from training.device import DeviceChoice, choose_device, keep_freed_memory

    run = options.run
    keep_freed_memory()
    # On a cluster's GPUs, whatever this machine has.
    far = options.ray is not None and options.device != "auto"
    choice = DeviceChoice(options.device) if far else choose_device(options.device)
    loaded = load_checkpoint(run, choice.device)
    dataset = options.load(loaded.schema)
    rows = options.rows(dataset)
    own = rows
    if part is not None:
        plans = part.pick(plan_shards(rows, dataset.paths, options.shard_rows))
        own = np.concatenate([rows[:0], *(plan.rows for plan in plans)])
    _check_files(dataset, own, options.max_reject_rate)
    with Bars() as progress:
        if choice.remark:
            progress.say(choice.remark)
        how = options.how(progress, device=choice.device)
        if part is not None:
            return build_part(dataset, rows, loaded, options.folder, part, how)
        return build_index(dataset, rows, loaded, options.folder, how)


def tell(options: GalleryOptions, report: BuildReport) -> int:
    """Print what was done; the exit code."""
    rate = report.encoded / report.encode_seconds if report.encode_seconds > 0 else 0.0
    if options.as_json:
        print_json(_to_json(report, options.run, rate))
    else:
        _print(report, rate)
    return 0


def _check_origin(out: Path, root: Path) -> None:
    """Refuse to replace, without being told to, the index of another dataset that is still there.

    An index of unknown origin is left to the build, which knows what to do with a damaged one.
    """
    try:
        manifest = read_manifest(out / MANIFEST_NAME)
    except CorruptStoreError:
        return
    other = None if manifest is None else Path(manifest.root)
    if other is not None and other != root.resolve() and other.is_dir():
        raise UsageError(
            f"{out} is the index of another dataset, {other}, not of {root.resolve()}; say with "
            f"--out where this one shall be, or --out {out} to replace that"
        )


def _check_files(dataset: Dataset, rows: NDArray[np.int64], most: float) -> None:
    """Look whether the listed pictures are there, before hours of encoding; DataError if the share
    of missing ones is more than `most`."""
    paths = [dataset.paths[row] for row in rows.tolist()]
    missing = [path for path in paths if not os.path.isfile(dataset.root / path)]
    if not missing:
        return
    some = ", ".join(missing[:3])
    told = f"{len(missing):,} of {len(paths):,} listed pictures are missing in {dataset.root}"
    if len(missing) > most * len(paths) or len(missing) == len(paths):
        raise DataError(
            f"{told}, more than {most:.0%} allowed by --max-reject-rate: {some}; nothing was "
            f"encoded; `retrieve inspect --dataset {dataset.root} --json` lists all of them"
        )
    say(f"{told}, and will be left out: {some}")


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
    search = report.search and {
        name: getattr(report.search, name) for name in ("factory", "recall", "worst_recall")
    }
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
    part = report.search is None
    lines = [
        f"{'part ' if part else 'index'}     {report.folder}",
        f"images    {report.images:,} ({report.encoded:,} encoded, {report.kept:,} kept)",
        f"rejected  {report.rejected:,}{'' if part else listed}",
        f"time      {report.seconds:.1f} s on {report.device} by {report.runtime}{speed}",
        f"size      {report.bytes / 1e6:,.1f} MB",
    ]
    if report.search is not None:
        lines.append(f"search    {in_words(report.search)}")
    for line in lines:
        say(line, stdout)
