"""Building an index: gallery images -> feature store -> views, resumable at every shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.align_labels import align_labels
from indexer.approximate_views import add_approximate
from indexer.atomic import as_resource_error, remove_temporaries
from indexer.calibration_images import calibration_images
from indexer.choose_forward import choose_forward
from indexer.committed import commit_manifest
from indexer.earlier_builds import carried, last_good, mixable, valid_views
from indexer.encode import torch_forward
from indexer.encode_shards import encode_shards
from indexer.encoding_precision import encoding_precision
from indexer.gallery import open_gallery, write_gallery
from indexer.index_choice import DEFAULT_RECALL, IndexChoice, choose_index, half_of_memory
from indexer.indexable import check_indexable
from indexer.lock import writer_lock
from indexer.manifest import (
    BUILDING_NAME,
    Identity,
    Manifest,
    ShardEntry,
    read_manifest,
    write_manifest,
)
from indexer.model_copy import copy_model
from indexer.onnx_runtime import Runtime, choose_runtime
from indexer.plan import ShardPlan, plan_shards
from indexer.preflight import PROBE_FROM, check_needs, in_words, needs_of, seconds_to_encode
from indexer.progress import Progress, Silent
from indexer.rejects import settle_rejects
from indexer.shard import name_places, open_shards
from indexer.shard_work import BuildWork, plan_work
from indexer.store import Store
from indexer.sweep import sweep
from indexer.views import conditions_of, write_views
from training.checkpoint import Checkpoint
from training.datasets.dataset import Dataset
from training.decoding import default_workers
from training.errors import DataError, UsageError

BATCH_ON_CPU, BATCH_ON_GPU = 32, 256  # images; larger ones are no faster, smaller ones on a GPU are


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
        kept: images whose maps were there already, of `images`.
        seconds: wall time of the whole build.
        encode_seconds: of which decoding and encoding.
        bytes: size of the index on disk.
        views: names of all views in the index.
        device: what encoded.
        runtime: what ran the model on it, `torch`, `onnx` or `onnx-int8`.
        search: what its views are searched with, and why.
        recalls: measured recall@10 of each view that has an approximate index.
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
    views: tuple[str, ...]
    device: str
    runtime: Runtime
    search: IndexChoice
    recalls: tuple[float, ...]


def build_index(
    dataset: Dataset,
    rows: NDArray[np.int64],
    checkpoint: Checkpoint,
    out: Path,
    views: Sequence[str] = ("types",),
    device: str = "cpu",
    batch_size: int | None = None,
    workers: int | None = None,
    shard_rows: int = 1024,
    max_reject_rate: float = 0.1,
    progress: Progress | None = None,
    runtime: str = "torch",
    index_factory: str | None = None,
    recall: float = DEFAULT_RECALL,
    precision: str = "auto",
) -> BuildReport:
    """Encode a gallery and commit it, with its views, as the index in `out`.

    Interrupted at any point, the same call goes on after the last committed shard. On an index
    that is there already, only images that are new or changed are encoded; with another model all
    of them are, while the old version stays readable until the new one is committed.

    Args:
        dataset: the gallery.
        rows: dataset rows to index, [M] int64; the order becomes the index's.
        checkpoint: the model; it is moved to `device`.
        out: folder of the index.
        views: sets of conditions, see `conditions_of`.
        device: `cpu`, `cuda` or `cuda:N`.
        batch_size: images at a time, at least 1; None chooses.
        workers: decoding processes; 0 decodes in this one, None chooses.
        shard_rows: images a shard, at least 1.
        max_reject_rate: highest share of unreadable images, 0..1.
        progress: a listener.
        runtime: `torch`, `onnx`, `onnx-int8` (both on the CPU) or `auto`. Those of float32 agree so
            closely that shards that another of them encoded are kept; maps of another precision
            never mix.
        precision: in which the backbone computes: `float32`, `bfloat16` or `auto`, see
            `encoding_precision`.
        index_factory: what views are searched with, a faiss index factory string; chosen by size if
            None, see `choose_index`.
        recall: recall@10 against the flat search that an approximate index has to reach.

    Returns:
        What was done.

    Raises:
        UsageError: an argument out of its range, or a model that is not M2Fashion.
        DataError: no image, too many broken ones, or a broken model.
        LockedError: another process writes to `out`.
        ResourceError: disk, memory or permission, or a runtime that is not installed.
    """
    check_indexable(checkpoint.model)
    if batch_size is None:
        batch_size = BATCH_ON_CPU if device == "cpu" else BATCH_ON_GPU
    for name, value, low in (("batch_size", batch_size, 1), ("shard_rows", shard_rows, 1)):
        if value < low:
            raise UsageError(f"{name} must be at least {low}, got {value}")
    if not 0 <= max_reject_rate <= 1:
        raise UsageError(f"max_reject_rate must be 0..1, got {max_reject_rate}")
    if not len(rows):
        raise DataError(f"dataset {dataset.name!r} has no image to index in this split")
    # Before the work: it finds a wrong factory or recall. The rows are settled by the rejects.
    planned = choose_index(len(rows), checkpoint.model.dim, recall, None, 0, index_factory)
    progress = progress or Silent()
    choice = choose_runtime(runtime, device)
    if choice.remark:
        progress.say(choice.remark)
    computed = encoding_precision(precision, choice.runtime, device)
    started = time.monotonic()
    wanted = conditions_of(checkpoint.schema, views)
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
        old = mixable(lambda: last_good(out, progress), out, draft.identity, progress)
        halted = mixable(lambda: read_manifest(out / BUILDING_NAME), out, draft.identity, progress)
        known = [m.int8_ranges for m in (old, halted) if m is not None]
        draft = replace(draft, int8_ranges=known[0] if known else ())
        plans = plan_shards(rows, dataset.paths, shard_rows)
        earlier = [manifest for manifest in (old, halted) if manifest is not None]
        todo = plan_work(out, dataset.root, plans, earlier, progress)
        kept = todo.copied + sum(entry.rows for entry in todo.done.values())
        have = {view.key for view in old.views} if old is not None and not todo.work else ()
        needs = needs_of(
            draft,
            kept + todo.missing,
            todo.missing,
            sum(condition.key not in have for condition in wanted),
            planned,
            shard_rows,
            batch_size,
            default_workers(todo.missing, device) if workers is None else workers,
        )
        progress.say(check_needs(needs, out))
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
            choice.runtime,
            batch_size,
            workers,
            progress,
        )
        encode_seconds = time.monotonic() - encode_started
        manifest = replace(manifest, shards=name_places(out, manifest.shards))
        settle_rejects(out, manifest, len(rows), max_reject_rate)
        files = open_shards(out, manifest.shards, verify=False)
        listed = [p.rows for p, s in zip(plans, manifest.shards, strict=True) if s.file]
        gallery = write_gallery(out, files, listed, aligned.labels, dataset.splits)
        manifest = replace(manifest, gallery=gallery)
        store = Store(out, manifest, open_gallery(out, gallery, False), files, False)
        built = valid_views(out, old, manifest)
        built += carried(store, checkpoint, old, built, wanted, device, progress)
        have = {view.key for view in built}
        missing = [condition for condition in wanted if condition.key not in have]
        built += write_views(store, checkpoint.model, missing, device=device, progress=progress)
        size = manifest.rows, checkpoint.model.dim
        search = choose_index(*size, recall, half_of_memory(), 0, index_factory)
        built = add_approximate(
            out, built, *size, search, recall, index_factory is not None, progress
        )
        manifest = replace(manifest, views=tuple(built))
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
        views=tuple(view.name for view in manifest.views),
        device=device,
        runtime=choice.runtime,
        search=search,
        recalls=tuple(v.approximate.recall for v in manifest.views if v.approximate),
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
    workers: int | None,
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
            checkpoint.preprocessing,
            runtime,
            draft.identity.precision,
            device,
            count,
            folder,
            lambda: calibration_images(root, paths, checkpoint.preprocessing),
            draft.int8_ranges,
            progress.say,
        )
        forward, draft = chosen.forward, replace(draft, int8_ranges=chosen.int8_ranges)

    def committed(plan: ShardPlan, entry: ShardEntry) -> None:
        done[plan.number] = entry
        write_manifest(folder / BUILDING_NAME, replace(draft, shards=_in_order(done)))

    if count >= PROBE_FROM:
        fresh = [path for plan in plans if plan.number not in done for path in plan.paths]
        seconds = seconds_to_encode(
            forward,
            checkpoint.preprocessing,
            device,
            root,
            fresh,
            batch_size,
            default_workers(count, device) if workers is None else workers,
        )
        share = count / len(fresh)  # the others of these shards are copied
        progress.say(f"encoding will take about {in_words(seconds * share)}")
    progress.start("images", count)
    encode_shards(
        folder,
        root,
        todo.work,
        todo.encoded,
        checkpoint.model.dim,
        checkpoint.model.grid,
        checkpoint.schema.size,
        forward,
        checkpoint.preprocessing,
        device,
        batch_size,
        default_workers(count, device) if workers is None else workers,
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
        dim=checkpoint.model.dim,
        grid=checkpoint.model.grid,
        precision=precision,
    )
