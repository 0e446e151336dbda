"""Building an index: gallery images -> descriptors -> one search, resumable at every shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.align_labels import align_labels
from indexer.build_search import build_search
from indexer.calibration_images import calibration_images
from indexer.choose_forward import choose_forward, choose_runtime
from indexer.committed import commit_manifest, read_committed
from indexer.encode import torch_forward
from indexer.encode_shards import encode_shards
from indexer.gallery import Known, open_gallery, write_gallery
from indexer.index_choice import DEFAULT_RECALL, choose_factory
from indexer.indexable import check_indexable
from indexer.lock import writer_lock
from indexer.manifest import (
    BUILDING_NAME,
    Identity,
    Manifest,
    SearchEntry,
    ShardEntry,
    read_manifest,
    write_manifest,
)
from indexer.measure_recall import Requests
from indexer.model_copy import copy_model
from indexer.onnx_runtime import Runtime
from indexer.plan import ShardPlan, plan_shards
from indexer.preflight import check_room
from indexer.progress import Progress, Silent
from indexer.rejects import settle_rejects
from indexer.shard import open_shards, rows_a_shard
from indexer.shard_work import BuildWork, plan_work
from indexer.store import Store
from indexer.store_file import is_intact
from indexer.sweep import sweep
from training.checkpoint import Checkpoint
from training.datasets.dataset import Dataset
from training.decoding import default_workers
from training.errors import CorruptStoreError, DataError, UsageError
from training.files import as_resource_error, remove_temporaries

BATCH_ON_CPU, BATCH_ON_GPU = 32, 256  # images; larger ones are no faster, smaller ones on a GPU are


@dataclass(frozen=True)
class BuildOptions:
    """How an index is built; what is None is chosen.

    Args:
        batch_size: images at a time, at least 1.
        workers: decoding processes; 0 decodes in this one.
        shard_rows: images a shard, at least 1.
        max_reject_rate: highest share of unreadable images, 0..1.
        runtime: `torch`, `onnx`, `onnx-int8` (both on the CPU) or `auto`. Those of float32 agree so
            closely that shards that another of them encoded are kept; descriptors of another
            precision never mix.
        precision: in which the backbone computes: `float32`, `bfloat16` or `auto`, see
            `choose_runtime`.
        index_factory: how descriptors are searched, `flat` or `IVFn`; see `choose_factory`.
        recall: recall@10 that inverted lists have to reach, above 0 and at most 1.
    """

    batch_size: int | None = None
    workers: int | None = None
    shard_rows: int | None = None
    max_reject_rate: float = 0.1
    runtime: str = "torch"
    precision: str = "auto"
    index_factory: str | None = None
    recall: float = DEFAULT_RECALL

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.max_reject_rate <= 1:
            raise UsageError(f"max_reject_rate must be 0..1, got {self.max_reject_rate}")


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Args:
        folder: the index.
        dataset: name of the dataset.
        listed: images that were asked for.
        images: images in the index.
        rejected: images that could not be read; they stand in `rejects.jsonl`.
        encoded: images that went through the model in this run, of `images`.
        kept: images whose descriptors were there already, of `images`.
        seconds: wall time of the whole build.
        encode_seconds: of which decoding and encoding.
        bytes: size of the index on disk.
        device: what encoded.
        runtime: what ran the model on it, `torch`, `onnx` or `onnx-int8`.
        search: how the descriptors are searched.
    """

    folder: Path
    dataset: str
    listed: int
    images: int
    rejected: int
    encoded: int
    kept: int
    seconds: float
    encode_seconds: float
    bytes: int
    device: str
    runtime: Runtime
    search: SearchEntry


def build_index(
    dataset: Dataset,
    rows: NDArray[np.int64],
    checkpoint: Checkpoint,
    out: Path,
    device: str = "cpu",
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    requests: Requests | None = None,
) -> BuildReport:
    """Encode a gallery and commit it as the index in `out`.

    Interrupted at any point, the same call goes on after the last committed shard. On an index
    that is there already, only images that are new or changed are encoded; with another model all
    of them are, while the old version stays readable until the new one is committed.

    Args:
        dataset: the gallery.
        rows: dataset rows to index, [M] int64; the order becomes the index's.
        checkpoint: the model; it is moved to `device`.
        out: folder of the index.
        device: `cpu`, `cuda` or `cuda:N`.
        options: how.
        progress: a listener.
        requests: makes the query vectors with which recall is measured; likeness by default.

    Returns:
        What was done.

    Raises:
        UsageError: an argument out of its range, or a model that is not M2Fashion.
        DataError: no image, too many broken ones, or a broken model.
        LockedError: another process writes to `out`.
        ResourceError: disk, memory or permission, or a runtime that is not installed.
    """
    check_indexable(checkpoint.model)
    options, progress = options or BuildOptions(), progress or Silent()
    if not len(rows):
        raise DataError(f"dataset {dataset.name!r} has no image to index in this split")
    choose_factory(len(rows), options.recall, options.index_factory)  # finds what is wrong with it
    runtime, computed = choose_runtime(options.runtime, options.precision, device)
    batch_size = options.batch_size or (BATCH_ON_CPU if device == "cpu" else BATCH_ON_GPU)
    shard_rows = options.shard_rows or rows_a_shard(len(rows))
    started = time.monotonic()
    checkpoint.model.to(device)
    aligned = align_labels(dataset.labels, dataset.schema, checkpoint.schema)
    if aligned.matched < checkpoint.schema.size:
        progress.say(
            f"the dataset knows {aligned.matched} of the model's {checkpoint.schema.size} values; "
            "labels of the others are unknown"
        )
    with writer_lock(out):
        with as_resource_error(out):
            remove_temporaries(out)
        draft = Manifest(
            identity=_identity(checkpoint, computed),
            dataset=dataset.name,
            root=str(dataset.root.resolve()),
            schema=checkpoint.schema.to_json(),
            preprocessing=checkpoint.preprocessing.to_json(),
            model_files=copy_model(checkpoint.folder, out),
        )
        old = _mixable(lambda: _last_good(out, progress), out, draft.identity, progress)
        halted = _mixable(lambda: read_manifest(out / BUILDING_NAME), out, draft.identity, progress)
        ranges = [m.int8_ranges for m in (old, halted) if m is not None]
        draft = replace(draft, int8_ranges=ranges[0] if ranges else ())
        plans = plan_shards(rows, dataset.paths, shard_rows)
        earlier = [manifest for manifest in (old, halted) if manifest is not None]
        todo = plan_work(out, dataset.root, plans, earlier, progress)
        kept = todo.copied + sum(entry.rows for entry in todo.done.values())
        workers = options.workers
        if workers is None:
            workers = default_workers(todo.missing, device)
        progress.say(check_room(out, draft, kept + todo.missing, todo.missing))
        encode_started = time.monotonic()
        if kept:
            progress.say(f"{kept:,} images are encoded already")
        manifest = _encode(
            out,
            dataset.root,
            plans,
            todo,
            draft,
            checkpoint,
            device,
            runtime,
            batch_size,
            workers,
            progress,
        )
        encode_seconds = time.monotonic() - encode_started
        settle_rejects(out, manifest, len(rows), options.max_reject_rate)
        files = open_shards(out, manifest.shards, verify=False)
        listed = [p.rows for p, s in zip(plans, manifest.shards, strict=True) if s.file]
        numbers = np.arange(len(dataset))
        known = Known(aligned.labels, dataset.splits, numbers, dataset.items, dataset.payload)
        gallery = write_gallery(out, files, listed, known)
        manifest = replace(manifest, gallery=gallery)
        store = Store(out, manifest, open_gallery(out, gallery, False), files, False)
        search = _still_valid(out, old, manifest, options)
        if search is None:
            target, asked = options.recall, options.index_factory
            search = build_search(store, target, asked, requests, progress)
        manifest = replace(manifest, search=search)
        commit_manifest(out, manifest)
        with as_resource_error(out):
            (out / BUILDING_NAME).unlink(missing_ok=True)
        sweep(out, manifest)
    return BuildReport(
        folder=out,
        dataset=dataset.name,
        listed=len(rows),
        images=manifest.rows,
        rejected=len(manifest.rejects),
        encoded=manifest.rows - kept,
        kept=kept,
        seconds=time.monotonic() - started,
        encode_seconds=encode_seconds,
        bytes=sum(entry.size for entry in manifest.files),
        device=device,
        runtime=runtime,
        search=manifest.search,
    )


def _encode(
    folder: Path,
    root: Path,
    plans: Sequence[ShardPlan],
    todo: BuildWork,
    draft: Manifest,
    checkpoint: Checkpoint,
    device: str,
    runtime: Runtime,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> Manifest:
    """Write the shards that are missing; the draft with all shards, and the ranges of int8."""
    done, count = dict(todo.done), todo.missing
    if not todo.work:
        return replace(draft, shards=_in_order(done))
    forward = torch_forward(checkpoint.model)
    if count:
        paths = [path for plan in plans for path in plan.paths]
        chosen = choose_forward(
            checkpoint.model,
            checkpoint.preprocessing.size,
            runtime,
            draft.identity.precision,
            lambda: calibration_images(root, paths, checkpoint.preprocessing),
            draft.int8_ranges,
        )
        forward, draft = chosen.forward, replace(draft, int8_ranges=chosen.int8_ranges)

    def committed(plan: ShardPlan, entry: ShardEntry) -> None:
        done[plan.number] = entry
        write_manifest(folder / BUILDING_NAME, replace(draft, shards=_in_order(done)))

    progress.start("images", count)
    encode_shards(
        folder,
        root,
        todo.work,
        todo.encoded,
        checkpoint.model.layout,
        forward,
        checkpoint.preprocessing,
        device,
        batch_size,
        workers,
        progress,
        committed,
    )
    return replace(draft, shards=_in_order(done))


def _in_order(done: dict[int, ShardEntry]) -> tuple[ShardEntry, ...]:
    return tuple(done[number] for number in sorted(done))


def _identity(checkpoint: Checkpoint, precision: str) -> Identity:
    return Identity(
        model=checkpoint.hash,
        preprocessing=checkpoint.preprocessing.hash,
        schema=checkpoint.schema.hash,
        layout=checkpoint.model.layout,
        precision=precision,
    )


def _last_good(out: Path, progress: Progress) -> Manifest | None:
    """The committed version; a remark on how it was found is told."""
    found = read_committed(out)
    if found is not None and found.remark is not None:
        progress.say(found.remark)
    return None if found is None else found.manifest


def _mixable(
    read: Callable[[], Manifest | None], out: Path, identity: Identity, progress: Progress
) -> Manifest | None:
    """An earlier manifest whose descriptors can be mixed with ours, else None, saying why."""
    try:
        manifest = read()
    except CorruptStoreError as error:
        progress.say(f"{error}; meanwhile every image is encoded anew")
        return None
    if manifest is None or manifest.identity == identity:
        return manifest
    ours = asdict(identity)
    names = [name for name, value in asdict(manifest.identity).items() if value != ours[name]]
    progress.say(
        f"what is in {out} is of another build ({', '.join(names)} differ): every "
        "image is encoded anew; a finished index stays usable until then"
    )
    return None


def _still_valid(
    out: Path, old: Manifest | None, manifest: Manifest, options: BuildOptions
) -> SearchEntry | None:
    """The search of the version before, if it was made from the same descriptors, as asked for."""
    if old is None or old.content != manifest.content or old.search.target != options.recall:
        return None
    factory = choose_factory(manifest.rows, options.recall, options.index_factory)
    if old.search.factory != factory or (old.search.file and not is_intact(out, old.search.file)):
        return None
    return replace(old.search, asked=options.index_factory is not None)
