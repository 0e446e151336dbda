"""Building an index: gallery images -> descriptors -> one search, resumable at every shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.build.on_ray import How, OnRay
from indexer.build.shards import ShardPlan, plan_shards, plan_work
from indexer.build.version import (
    Means,
    OneProcess,
    copy_model,
    renewed_search,
    settle_rejects,
    write_shards,
    write_version,
)
from indexer.encode.encode import Forward
from indexer.encode.forward import choose_forward, choose_runtime
from indexer.progress import Progress, Silent
from indexer.search.choose import Requests, choose_factory
from indexer.store.gallery import Known
from indexer.store.manifest import (
    BUILDING_NAME,
    DEFAULT_RECALL,
    Committed,
    FileEntry,
    Identity,
    Manifest,
    SearchEntry,
    committed_versions,
    read_manifest,
    sweep,
    write_manifest,
    writer_lock,
)
from training.checkpoint import ONNX, Checkpoint
from training.datasets.dataset import Dataset
from training.errors import CorruptStoreError, DataError, UsageError


@dataclass(frozen=True)
class BuildOptions:
    """How an index is built; what is None is chosen.

    For `runtime` and `precision` see `choose_runtime`: those of float32 agree so closely that
    shards of another are kept; descriptors of another precision never mix.
    """

    batch_size: int | None = None  # images at a time, at least 1
    workers: int | None = None  # decoding threads; 0 decodes in the calling one
    shard_rows: int | None = None  # images a shard, at least 1
    max_reject_rate: float = 0.1  # highest share of unreadable images, 0..1
    runtime: str = "auto"
    precision: str = "auto"
    index_factory: str | None = None  # `flat` or `IVFn`; see `choose_factory`
    recall: float = DEFAULT_RECALL  # @10 that inverted lists have to reach, above 0 and at most 1
    device: str = "cpu"  # or `cuda` or `cuda:N`
    ray: str | None = None  # address of a Ray cluster that encodes, or `local`
    progress: Progress = field(default_factory=Silent)
    requests: Requests | None = None  # of the queries that measure recall; likeness by default

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.max_reject_rate <= 1:
            raise UsageError(f"max_reject_rate must be 0..1, got {self.max_reject_rate}")


@dataclass(frozen=True)
class BuildReport:
    """What a build did, in numbers of images, and on which device with which runtime."""

    folder: Path
    dataset: str  # its name
    listed: int  # that were asked for
    images: int  # of them in the index
    rejected: int  # of them that could not be read; they stand in `rejects.jsonl`
    encoded: int  # of `images`, those that went through the model in this run
    kept: int  # of `images`, those whose descriptors were there already
    seconds: float  # wall time
    encode_seconds: float  # of it, of decoding and encoding
    bytes: int  # size of the index on disk
    device: str
    runtime: str
    search: SearchEntry | None  # None of a part


def build_index(
    dataset: Dataset,
    rows: NDArray[np.int64],
    checkpoint: Checkpoint,
    out: Path,
    options: BuildOptions | None = None,
) -> BuildReport:
    """Encode a gallery and commit it as the index in `out`.

    Interrupted at any point, the same call goes on after the last committed shard. On an index
    that is there already, only images that are new or changed are encoded; with another model all
    of them are, while the old version stays readable until the new one is committed.

    Args:
        dataset: the gallery.
        rows: of the dataset, to index, [M] int64; the order becomes the index's.
        checkpoint: of M2Fashion. If its training did not come to its end, its model is exported
            now, which needs torch.
        out: folder of the index.
        options: how.

    Raises:
        UsageError: an option out of its range, or a model that is not M2Fashion.
        DataError: no image, too many broken ones, or a broken model.
        LockedError: another process writes to `out`.
        ResourceError: disk, memory or permission, or a runtime that is not installed.
    """
    return finish(prepare(dataset, rows, checkpoint, options or BuildOptions()), out)


@dataclass(frozen=True)
class Job:
    """A gallery cut into shards, and what encodes it."""

    started: float  # of `time.monotonic`
    dataset: Dataset
    plans: list[ShardPlan]
    checkpoint: Checkpoint
    identity: Identity
    runtime: str
    means: Means
    options: BuildOptions

    @property
    def listed(self) -> int:
        """How many images were asked for."""
        return sum(len(plan.paths) for plan in self.plans)

    def draft(self, model_files: tuple[FileEntry, ...] = ()) -> Manifest:
        """A manifest without shards."""
        return Manifest(
            identity=self.identity,
            dataset=self.dataset.name,
            root=str(self.dataset.root.resolve()),
            schema=self.checkpoint.schema.to_json(),
            preprocessing=self.checkpoint.preprocessing.to_json(),
            model_files=model_files,
        )

    def write(self, folder: Path, draft: Manifest, old: Manifest | None = None) -> Encoded:
        """Write the shards into `folder` but those that an interrupted build, or `old`, has there;
        for the holder of the lock."""
        building, progress = folder / BUILDING_NAME, self.means.progress

        def read_halted() -> Committed | None:
            found = read_manifest(building)
            return None if found is None else Committed(found)

        halted = _mixable(read_halted, folder, self.identity, progress)
        earlier = [manifest for manifest in (old, halted) if manifest is not None]
        todo = plan_work(folder, self.dataset.root, self.plans, earlier, progress)
        started = time.monotonic()
        manifest = write_shards(
            folder, draft, todo, self.means, lambda m: write_manifest(building, m)
        )
        return Encoded(manifest, todo.kept, time.monotonic() - started)

    def report(
        self, folder: Path, encoded: Encoded, manifest: Manifest, search: SearchEntry | None
    ) -> BuildReport:
        """What was done."""
        return BuildReport(
            folder=folder,
            dataset=self.dataset.name,
            listed=self.listed,
            images=manifest.rows,
            rejected=len(manifest.rejects),
            encoded=manifest.rows - encoded.kept,
            kept=encoded.kept,
            seconds=time.monotonic() - self.started,
            encode_seconds=encoded.seconds,
            bytes=sum(entry.size for entry in manifest.files),
            device=self.options.device,
            runtime=self.runtime,
            search=search,
        )


@dataclass(frozen=True)
class Encoded:
    """A manifest with all its shards, and what they took."""

    manifest: Manifest
    kept: int  # images that needed no encoding
    seconds: float  # wall time


def prepare(
    dataset: Dataset, rows: NDArray[np.int64], checkpoint: Checkpoint, options: BuildOptions
) -> Job:
    """Find what is wrong with a build before anything is written; arguments and errors are those of
    `build_index`."""
    started, progress = time.monotonic(), options.progress
    if not len(rows):
        raise DataError(f"dataset {dataset.name!r} has no image to index in this split")
    choose_factory(len(rows), options.recall, options.index_factory)
    check_indexable(checkpoint)
    device = options.device

    def open_model() -> Forward:
        return choose_forward(checkpoint, runtime, precision, device)

    if options.ray and device != "cpu" and options.precision == "auto":
        raise UsageError(
            "which precision the GPUs of a Ray cluster compute in best cannot be seen from here: "
            "give --precision bfloat16, or float32"
        )
    runtime, precision = choose_runtime(options.runtime, options.precision, device)
    means: Means
    if options.ray:
        how = How(runtime, precision, device, options.batch_size, options.workers)
        means = OnRay(options.ray, how, progress)
    else:
        means = OneProcess(open_model, progress, options.batch_size, options.workers)
    export_if_missing(checkpoint, dataset.root, [dataset.paths[row] for row in rows], progress)

    return Job(
        started,
        dataset,
        plan_shards(rows, dataset.paths, options.shard_rows),
        checkpoint,
        Identity(
            model=checkpoint.hash,
            preprocessing=checkpoint.preprocessing.hash,
            schema=checkpoint.schema.hash,
            layout=checkpoint.layout,
            precision=precision,
        ),
        runtime,
        means,
        options,
    )


def finish(job: Job, out: Path) -> BuildReport:
    """Encode what is not in `out`, and commit it as the index there; raises as `build_index`."""
    options, progress = job.options, job.means.progress
    factory = choose_factory(job.listed, options.recall, options.index_factory)
    wanted = SearchEntry(factory, options.index_factory is not None, options.recall)
    known = Known.of(job.dataset, job.checkpoint.schema, progress.say)
    with writer_lock(out):
        draft = job.draft(copy_model(job.checkpoint.folder, out))
        versions = committed_versions(out)
        old = _mixable(lambda: next(versions, None), out, job.identity, progress)
        encoded = job.write(out, draft, old)
        settle_rejects(out, encoded.manifest, job.listed, options.max_reject_rate)
        manifest = write_version(
            out,
            encoded.manifest,
            job.plans,
            known,
            lambda store: renewed_search(store, old, wanted, options.requests, progress),
        )
        sweep(out, manifest, halted=False)
    return job.report(out, encoded, manifest, manifest.search)


def export_if_missing(
    checkpoint: Checkpoint, root: Path, paths: Sequence[str], progress: Progress
) -> None:
    """What training does at its end if that did not come, by pictures `root / path`."""
    if (checkpoint.folder / ONNX).is_file():
        return
    from training.export import export_checkpoint, sample_pictures

    progress.say(f"{checkpoint.folder} holds no {ONNX}: its training did not come to its end; now")
    pictures = sample_pictures(root, paths, checkpoint.preprocessing)
    export_checkpoint(replace(checkpoint, device="cpu"), pictures)


def check_indexable(checkpoint: Checkpoint) -> None:
    """Raise UsageError for a rival: what it sees in an image is not read as chances of values."""
    architecture = checkpoint.config.architecture
    if architecture != "m2fashion":
        raise UsageError(
            f"this checkpoint holds the model {architecture!r}: `retrieve evaluate` measures "
            "it, but only m2fashion can be indexed; train one with `retrieve train --variant "
            "m2fashion`"
        )


def _mixable(
    read: Callable[[], Committed | None], out: Path, identity: Identity, progress: Progress
) -> Manifest | None:
    """An earlier manifest whose descriptors can be mixed with ours, else None, saying why."""
    try:
        found = read()
    except CorruptStoreError as error:
        progress.say(f"{error}; meanwhile every image is encoded anew")
        return None
    if found is not None and found.remark is not None:
        progress.say(found.remark)
    manifest = None if found is None else found.manifest
    if manifest is None or manifest.identity == identity:
        return manifest
    ours = asdict(identity)
    names = [name for name, value in asdict(manifest.identity).items() if value != ours[name]]
    progress.say(
        f"what is in {out} is of another build ({', '.join(names)} differ): every "
        "image is encoded anew; a finished index stays usable until then"
    )
    return None
