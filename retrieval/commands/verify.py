"""`retrieve verify`: check every file of an index, and restore what is damaged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from retrieval.console import Bars, print_json, say, stdout
from retrieval.options import DEVICE, JSON, PATH, filled, only_index
from training.datasets import ADAPTERS, load_dataset
from training.errors import DataError, UsageError
from training.schema import Schema

if TYPE_CHECKING:
    from indexer.build.verify import Repair, Verification
    from indexer.progress import Progress
    from indexer.store.manifest import Manifest
    from training.datasets.dataset import Dataset


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `retrieve verify` is told."""

    index: Annotated[Path | None, click.argument("index", required=False, type=PATH)]
    repair: Annotated[bool, "Restore what is damaged, then check again."] = False
    dataset: Annotated[
        str | None,
        "With --repair: where labels come from [default: what the index was built from].",
    ] = None
    root: Annotated[Path | None, "With --repair: the images' folder, if they have moved."] = None
    checkpoint: Annotated[
        Path | None, "With --repair: a copy of the model, should the index's own be damaged."
    ] = None
    device: Annotated[str, DEVICE]
    as_json: Annotated[bool, JSON]


@click.command("verify")
@filled(Options)
def command(options: Options) -> int:
    """Check every file of INDEX [default: the one in indexes/] against its manifest.

    Ends with 0 if all is sound and with 4 if something is damaged. --repair encodes damaged shards
    again from their images, and they alone, makes what searches them anew, and says what it could
    not restore.
    """
    if not options.repair and (options.dataset or options.root or options.checkpoint):
        raise UsageError("--dataset, --root and --checkpoint go with --repair")
    folder = options.index or only_index("INDEX")
    if not folder.is_dir():
        raise DataError(f"no index in {folder}: that is no folder")

    from indexer.build.verify import verify_index

    restored: list[str] = []
    why: dict[str, str] = {}
    with Bars() as progress:
        if options.repair:
            done = _repair(folder, options, progress)
            found, why = done.after, done.why
            restored = [file for file in done.before.damaged if file not in found.damaged]
        else:
            found = verify_index(folder, progress)
    if options.as_json:
        files = [asdict(f) | {"why": why.get(f.file)} for f in found.findings]
        sound = not found.damaged
        print_json({"index": str(folder), "sound": sound, "files": files, "restored": restored})
    else:
        for file in restored:
            say(f"restored  {file}", stdout)
        _print(folder, found, why if options.repair else None)
    return 4 if found.damaged else 0


def _repair(folder: Path, options: Options, progress: Progress) -> Repair:
    from indexer.build.verify import RepairOptions, repair_index
    from training.device import choose_device

    def dataset(manifest: Manifest) -> Dataset:
        """What the index was built from, with the attributes of its model."""
        where, name = options.root or Path(manifest.root), options.dataset
        if name is None:
            name = manifest.dataset if manifest.dataset in ADAPTERS else str(where)
        place = where if name.casefold() in ADAPTERS else None
        return load_dataset(name, place, schema=Schema.from_json(manifest.schema))

    device = choose_device(options.device).device
    how = RepairOptions(dataset, options.root, options.checkpoint, device)
    return repair_index(folder, how, progress)


def _print(folder: Path, found: Verification, why: dict[str, str] | None) -> None:
    files = len(found.findings)
    if not found.damaged:
        say(f"{folder} is sound: {files} files, {found.version.rows:,} images", stdout)
        return
    for file, finding in found.damaged.items():  # a line each: names stay whole when narrow
        line = f"damaged   {finding.kind} {file}: {finding.problem or 'damaged'}"
        if why is not None:
            line += f"; it stays so: {why.get(file, 'it depends on another damaged file')}"
        say(line, stdout)
    say(f"{len(found.damaged)} of {files} files of {folder} are damaged", stdout)
    if why is None:
        say(f"`retrieve verify {folder} --repair` restores what can be restored")
