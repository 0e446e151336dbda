"""Writing one version of an index: its model, its shards, its gallery file, its search, its commit.

A build, an edit and a repair differ in what they list and in which shards they find done; what they
write, they write here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.build.shards import Done, Encoder, ShardPlan, Work, encode_shards
from indexer.encode.encode import EncodedBatch, Forward
from indexer.encode.forward import choose_forward, choose_runtime
from indexer.progress import Progress
from indexer.search.choose import LISTS_FROM, Requests, build_search, choose_factory
from indexer.store.files import problem_of
from indexer.store.gallery import Known, open_gallery, write_gallery
from indexer.store.manifest import (
    FileEntry,
    Manifest,
    SearchEntry,
    ShardEntry,
    commit_manifest,
)
from indexer.store.shard import open_shards
from indexer.store.store import Store
from training.checkpoint import FILES, load_checkpoint
from training.errors import DataError, ResourceError
from training.files import write_file
from training.images.batches import default_workers
from training.images.preprocessing import Preprocessing
from training.schema import Schema

REJECTS_NAME = "rejects.jsonl"
_PATH = 64  # bytes of a path, about
_SPARE = 64 << 20  # bytes left for manifests, folders and other processes


def check_room(folder: Path, draft: Manifest, images: int, encode: int) -> str:
    """What a build of so many images, of which some are encoded, writes into `folder`, beside the
    version that it replaces, and what is free there, for a person; ResourceError if that is less.
    """
    width = draft.identity.layout.width
    stored = width + 32 + 4 + _PATH  # of an image
    gallery = 8 + Schema.from_json(draft.schema).size + 1 + 8 + _PATH
    lists = width + 8 if images >= LISTS_FROM else 0
    needed = encode * stored + images * (gallery + lists)
    free = shutil.disk_usage(folder).free
    what = f"{images:,} images, {encode:,} to be encoded"
    room = f"{-(-needed // 10**6):,} MB in {folder}, where {free // 10**6:,} MB are free"
    if needed + _SPARE > free:
        raise ResourceError(f"{what}, need {room}; free some space, or give another --out")
    return f"{what}, need {room}"


class Means(Protocol):
    """What writes the shards that are missing."""

    @property
    def progress(self) -> Progress:
        """Who is told of it."""

    def encode(self, folder: Path, draft: Manifest, todo: Work, committed: Done) -> None:
        """Write them, `committed` being given each once it is safely on disk. Raises as
        `encode_shards`."""


@dataclass(frozen=True)
class OneProcess:
    """This process, by a model that is opened where something has to be encoded.

    `batch_size` images at a time (None: by device), decoded by `workers` threads (None: by need).
    """

    open_model: Callable[[], Forward]
    progress: Progress
    batch_size: int | None = None
    workers: int | None = None

    def encode(self, folder: Path, draft: Manifest, todo: Work, committed: Done) -> None:
        """See `Means`; in the shards' order."""
        forward = self.open_model() if todo.missing else Forward(_nothing)
        device = forward.device
        encoder = Encoder(
            Path(draft.root),
            draft.identity.layout,
            forward,
            Preprocessing.from_json(draft.preprocessing),
            self.batch_size or forward.batch_size,
            default_workers(device) if self.workers is None else self.workers,
        )
        self.progress.start("images", todo.missing)
        encode_shards(folder, todo, encoder, self.progress, committed)


def runtime_of(precision: str) -> tuple[str, str]:
    """The runtime and the precision to ask for, for an index of a precision."""
    return ("onnx-int8", "auto") if precision == "int8" else ("auto", precision)


def means_of(manifest: Manifest, model: Path, device: str, progress: Progress) -> Means:
    """What encodes more images for an index that is there, with the model in a folder of it."""
    precision = manifest.identity.precision

    def open_model() -> Forward:
        runtime, _ = choose_runtime(*runtime_of(precision), device)
        return choose_forward(load_checkpoint(model), runtime, precision, device)

    return OneProcess(open_model, progress)


def write_shards(
    folder: Path,
    draft: Manifest,
    todo: Work,
    means: Means,
    committed: Callable[[Manifest], None] | None = None,
) -> Manifest:
    """Write the shards that are missing: the draft with all shards.

    For the holder of the lock. `committed`, of a build, which says what it takes, is given all
    shards that are on disk after each shard, by another thread. Raises as `encode_shards`.
    """
    count, say = todo.missing, means.progress.say
    room = check_room(folder, draft, todo.kept + count, count)
    if committed is not None:
        say(room)
        if todo.kept:
            say(f"{todo.kept:,} images are encoded already")
    done = dict(todo.done)

    def so_far() -> Manifest:
        return replace(draft, shards=tuple(done[number] for number in sorted(done)))

    def on_disk(number: int, entry: ShardEntry) -> None:
        done[number] = entry
        if committed is not None:
            committed(so_far())

    if todo.work:
        means.encode(folder, draft, todo, on_disk)
    return so_far()


def write_version(
    folder: Path,
    manifest: Manifest,
    plans: list[ShardPlan],
    known: Known,
    make_search: Callable[[Store], SearchEntry],
) -> Manifest:
    """Write gallery file and search of a version whose shards are written, and commit it; for the
    holder of the lock. `plans` are of its shards, by rows of `known`."""
    files = open_shards(folder, manifest.shards, verify=False)
    held = [plan for plan, shard in zip(plans, manifest.shards, strict=True) if shard.file]
    rows = [plan.rows[file.rows.listed] for plan, file in zip(held, files, strict=True)]
    paths = (path for file in files for path in file.rows.paths)
    gallery = write_gallery(folder, paths, np.concatenate(rows), known)
    manifest = replace(manifest, gallery=gallery)
    store = Store(folder, manifest, open_gallery(folder, gallery, False), files, verify=False)
    manifest = replace(manifest, search=make_search(store))
    commit_manifest(folder, manifest)
    return manifest


def renewed_search(
    store: Store,
    old: Manifest | None,
    wanted: SearchEntry,
    requests: Requests | None,
    progress: Progress,
) -> SearchEntry:
    """The search of a version: the old one's if it was made from the same descriptors, as wanted;
    else that of `build_search`."""
    asked = wanted.factory if wanted.asked else None
    search = None if old is None else old.search
    if search and old and old.content == store.manifest.content and search.target == wanted.target:
        same = search.factory == choose_factory(len(store), wanted.target, asked)
        if same and not (search.file and problem_of(store.folder, search.file)):
            return replace(search, asked=wanted.asked)
    return build_search(store, wanted.target, asked, requests, progress)


def copy_model(checkpoint: Path, folder: Path) -> tuple[FileEntry, ...]:
    """Copy a checkpoint's files to `<folder>/model/<hash>/`, so that an index opens by itself;
    raises DataError if there is none or it cannot be read."""
    there = [name for name in FILES if (checkpoint / name).exists()]
    try:
        contents = {name: (checkpoint / name).read_bytes() for name in there}
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {checkpoint}: {error}") from error
    if not contents:
        raise DataError(f"{checkpoint} holds no checkpoint")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    place = "model/" + hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:12]
    for name, content in contents.items():
        write_file(folder / place / name, content)
    return tuple(FileEntry(f"{place}/{n}", digests[n], len(c)) for n, c in contents.items())


def settle_rejects(out: Path, manifest: Manifest, listed: int, max_reject_rate: float) -> None:
    """Write `rejects.jsonl`; raise DataError if they are too many of the listed images."""
    rejects = manifest.rejects
    lines = [json.dumps(asdict(reject)) + "\n" for reject in rejects]
    write_file(out / REJECTS_NAME, "".join(lines).encode())
    if rejects and (len(rejects) > max_reject_rate * listed or not manifest.rows):
        some = "; ".join(f"{reject.path} ({reject.reason})" for reject in rejects[:3])
        first = some.encode("utf-8", "backslashreplace").decode()
        raise DataError(
            f"{len(rejects):,} of {listed:,} images could not be read, more than "
            f"{max_reject_rate:.0%} allowed by --max-reject-rate: {first}; all of them are in "
            f"{out / REJECTS_NAME}"
        )


def _nothing(images: NDArray[np.uint8]) -> EncodedBatch:
    raise AssertionError("only what was announced is encoded")
