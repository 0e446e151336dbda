"""`retrieve verify`: check every file of an index, and restore what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval.build_progress import BuildProgress
from retrieval.console import print_json, stderr, stdout
from retrieval.index_folder import only_index
from retrieval.printable import plain
from training.datasets import ADAPTERS, load_with_schema
from training.errors import DataError, UsageError
from training.schema import Schema

if TYPE_CHECKING:
    from indexer.manifest import Manifest
    from indexer.progress import Progress
    from indexer.repair import Repair
    from indexer.verify import Verification
    from training.datasets.dataset import Dataset


@click.command("verify")
@click.argument("index", required=False, type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Restore what is damaged, then check again.")
@click.option(
    "--dataset",
    "name",
    metavar="NAME|FOLDER",
    help="With --repair: where labels come from [default: what the index was built from].",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="With --repair: the folder of the images, if they have moved.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="With --repair: a copy of the model, should the index's own be damaged.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    index: Path | None,
    repair: bool,
    name: str | None,
    root: Path | None,
    checkpoint: Path | None,
    device: str,
    as_json: bool,
) -> int:
    """Check every file of INDEX [default: the one in indexes/] against its manifest.

    Ends with 0 if all is sound and with 4 if something is damaged. --repair encodes damaged shards
    again from their images, and they alone, makes what searches them anew, and says what it could
    not restore.
    """
    if not repair and (name or root or checkpoint):
        raise UsageError("--dataset, --root and --checkpoint go with --repair")
    folder = only_index("INDEX") if index is None else index
    if not folder.is_dir():
        raise DataError(f"no index in {folder}: that is no folder")

    from indexer.verify import verify_index

    restored: list[str] = []
    why: dict[str, str] = {}
    with BuildProgress(stderr) as progress:
        if repair:
            done = _repair(folder, name, root, checkpoint, device, progress)
            found, why = done.after, done.why
            restored = [file for file in done.before.damaged if file not in found.damaged]
        else:
            found = verify_index(folder, progress)
    if as_json:
        print_json(_to_json(folder, found, restored, why))
    else:
        _print(folder, found, restored, why, repair)
    return 4 if found.damaged else 0


def _repair(
    folder: Path,
    name: str | None,
    root: Path | None,
    checkpoint: Path | None,
    device: str,
    progress: Progress,
) -> Repair:
    from indexer.device import choose_device
    from indexer.repair import RepairOptions, repair_index
    from training.checkpoint import load_checkpoint

    choice = choose_device(device)
    options = RepairOptions(
        lambda place: load_checkpoint(place, choice.device),
        lambda manifest: _dataset(manifest, name, root),
        root,
        checkpoint,
        choice.device,
    )
    return repair_index(folder, options, progress)


def _dataset(manifest: Manifest, name: str | None, root: Path | None) -> Dataset:
    """The dataset that an index was built from, with the attributes of its model."""
    where = root or Path(manifest.root)
    if name is None:
        name = manifest.dataset if manifest.dataset in ADAPTERS else str(where)
    place = where if name.casefold() in ADAPTERS else None
    return load_with_schema(Schema.from_json(manifest.schema), name, place)


def _to_json(
    folder: Path, found: Verification, restored: list[str], why: dict[str, str]
) -> dict[str, Any]:
    return {
        "index": str(folder),
        "sound": not found.damaged,
        "files": [
            {"file": f.file, "kind": f.kind, "problem": f.problem, "why": why.get(f.file)}
            for f in found.findings
        ],
        "restored": restored,
    }


def _print(
    folder: Path, found: Verification, restored: list[str], why: dict[str, str], repair: bool
) -> None:
    for file in restored:
        stdout.print(f"restored  {plain(file)}", soft_wrap=True)
    if not found.damaged:
        rows = f"{found.version.rows:,} images"
        stdout.print(
            f"{plain(str(folder))} is sound: {len(found.findings)} files, {rows}", soft_wrap=True
        )
        return
    for (
        file,
        finding,
    ) in found.damaged.items():  # a line each: names stay whole in a narrow terminal
        line = f"damaged   {finding.kind} {file}: {finding.problem or 'damaged'}"
        if repair:
            line += f"; it stays so: {why.get(file, 'it depends on another damaged file')}"
        stdout.print(plain(line), soft_wrap=True)
    told = f"{len(found.damaged)} of {len(found.findings)} files of {folder} are damaged"
    stdout.print(plain(told), soft_wrap=True)
    if not repair:
        stderr.print(
            f"`retrieve verify {folder} --repair` restores what can be restored",
            markup=False,
            soft_wrap=True,
        )
