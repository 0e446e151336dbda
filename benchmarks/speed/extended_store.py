"""An index of any size, made from a real index of real trained maps.

Its first rows are the source's own shards. Further rows are the source's again and again, each
time perturbed (`perturb.py`), with P and the predictions that the model gives for the perturbed
map and the labels of the image that it was made from. All files go through the indexer's own
writers, so what comes out is an index like any other; its dataset's name says how it was made.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.perturb import perturb_maps
from indexer.approximate_views import add_approximate
from indexer.atomic import commit, remove_temporaries, temporary_file
from indexer.committed import commit_manifest
from indexer.encode import EncodedBatch
from indexer.gallery import open_gallery, write_gallery
from indexer.index_choice import DEFAULT_RECALL, choose_index, half_of_memory
from indexer.lock import writer_lock
from indexer.manifest import (
    BUILDING_NAME,
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    ShardEntry,
    read_manifest,
    write_manifest,
)
from indexer.model_copy import copy_model
from indexer.path_list import PathList
from indexer.plan import content_hash, listing_hash, paths_hash
from indexer.progress import Progress, Silent
from indexer.quantise import QuantisedMaps, dequantise, quantise
from indexer.shard import ShardFile, ShardRows, open_shards, write_shard
from indexer.store import Store, open_store
from indexer.sweep import sweep
from indexer.views import conditions_of, write_views
from training.checkpoint import load_checkpoint
from training.errors import UsageError
from training.models.conditioned import ConditionedEmbedder

_NO_STAT = (-1, -1)  # size and time of change of no file: a build keeps no such shard
_BATCH = 256  # images perturbed at a time: 26 MB of float32 maps, a few times over


@dataclass(frozen=True)
class _Part:
    """A shard to be: the source's rows that it is made of, or a shard of the source as it is."""

    number: int
    rows: NDArray[np.int64]
    entry: ShardEntry | None = None
    perturbed: bool = False


def extend(
    source: Path,
    out: Path,
    rows: int,
    seed: int = 0,
    shard_rows: int = 1024,
    views: tuple[str, ...] = ("types",),
    progress: Progress | None = None,
    device: str = "cpu",
) -> Path:
    """Make an index of `rows` images in `out`, or keep the one that is there if it fits.

    Interrupted, the same call goes on after the last committed shard. Memory holds one shard.

    Args:
        source: a finished index.
        out: folder of the index to make.
        rows: its size, at least 1; fewer than the source has are its first ones.
        seed: of every draw.
        shard_rows: images a perturbed shard.
        views: sets of conditions, see `conditions_of`.
        progress: a listener.
        device: where maps are perturbed and views computed; a GPU's index has no approximate views,
            since a GPU searches the vectors.

    Returns:
        `out`.

    Raises:
        UsageError: `rows` or `shard_rows` below 1.
        DataError: there is no index in `source`.
        ResourceError: the disk is full.
    """
    for name, value in (("rows", rows), ("shard_rows", shard_rows)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    progress = progress or Silent()
    store = open_store(source)
    wanted = conditions_of(store.schema, views)
    draft = replace(
        store.manifest,
        dataset=f"{store.manifest.dataset}, {_recipe(store, seed, shard_rows)}",
        shards=(),
        gallery=None,
        model_files=(),
        views=(),
    )
    done = read_manifest(out / MANIFEST_NAME)
    keys = {condition.key for condition in wanted}
    if done is not None and _fits(done, draft, rows) and {v.key for v in done.views} >= keys:
        return out
    with writer_lock(out):
        remove_temporaries(out)
        model = load_checkpoint(store.model_folder, device).model
        draft = replace(draft, model_files=copy_model(store.model_folder, out))
        parts = list(_parts(store, rows, shard_rows))
        entries = _kept((done, read_manifest(out / BUILDING_NAME)), draft, parts)
        progress.start(f"an index of {rows:,} images", rows)
        progress.advance(sum(entry.rows for entry in entries))
        for part in parts[len(entries) :]:
            entries.append(_make(store, model, out, part, seed, device))
            write_manifest(out / BUILDING_NAME, replace(draft, shards=tuple(entries)))
            progress.advance(len(part.rows))
        manifest = replace(draft, shards=tuple(entries))
        files = open_shards(out, entries, verify=False)
        manifest = replace(manifest, gallery=_gallery(store, out, files, parts))
        assert manifest.gallery is not None
        made = Store(out, manifest, open_gallery(out, manifest.gallery, False), files, False)
        written = write_views(made, model, wanted, device, progress=progress)
        if device == "cpu":
            choice = choose_index(rows, store.dim, DEFAULT_RECALL, half_of_memory())
            written = add_approximate(
                out, written, rows, store.dim, choice, DEFAULT_RECALL, False, progress
            )
        manifest = replace(manifest, views=tuple(written))
        commit_manifest(out, manifest)
        (out / BUILDING_NAME).unlink(missing_ok=True)
        sweep(out, manifest)
    return out


def _recipe(store: Store, seed: int, shard_rows: int) -> str:
    return f"extended (seed {seed}, {shard_rows} a shard, from {store.manifest.content[:12]})"


def _same_recipe(manifest: Manifest, draft: Manifest) -> bool:
    return (manifest.identity, manifest.dataset) == (draft.identity, draft.dataset)


def _fits(done: Manifest, draft: Manifest, rows: int) -> bool:
    return _same_recipe(done, draft) and done.rows == rows


def _kept(
    earlier: tuple[Manifest | None, ...], draft: Manifest, parts: list[_Part]
) -> list[ShardEntry]:
    """Committed shards that the parts begin with: a shard does not depend on those after it."""
    longest: list[ShardEntry] = []
    for manifest in earlier:
        if manifest is not None and _same_recipe(manifest, draft):
            pairs = zip(manifest.shards, parts, strict=False)
            alike = [e for e, _ in takewhile(lambda pair: pair[0].rows == len(pair[1].rows), pairs)]
            longest = max(longest, alike, key=len)
    return longest


def _parts(store: Store, rows: int, shard_rows: int) -> Iterator[_Part]:
    """The shards of an index of so many rows, in order."""
    start = 0
    for number, entry in enumerate(store.manifest.shards):
        stop = min(start + entry.rows, rows)
        own = np.arange(start, stop)
        if len(own):
            yield _Part(number, own, entry if len(own) == entry.rows else None)
        start = stop
    first = len(store.manifest.shards)
    for number, start in enumerate(range(len(store), rows, shard_rows), start=first):
        own = np.arange(start, min(start + shard_rows, rows)) % len(store)
        yield _Part(number, own, perturbed=True)


def _make(
    store: Store, model: ConditionedEmbedder, out: Path, part: _Part, seed: int, device: str
) -> ShardEntry:
    if part.entry is not None and part.entry.file is not None:
        _copy(store.folder, out, part.entry.file)
        return part.entry
    paths = [store.paths[row] for row in part.rows.tolist()]
    digests = store.gallery.digests[part.rows]
    if part.perturbed:
        encoded = _perturbed(store, model, part, seed, device)
        marks = (hashlib.sha256(d.tobytes() + bytes(str(part.number), "ascii")) for d in digests)
        digests = np.frombuffer(b"".join(m.digest() for m in marks), np.uint8).reshape(-1, 32)
    else:
        encoded = EncodedBatch(*store.quantised(part.rows), store.predicted()[part.rows])
    count = len(part.rows)
    rows = ShardRows(
        encoded.maps,
        encoded.keys,
        encoded.predicted,
        digests,
        np.arange(count, dtype=np.int32),
        PathList.of(paths),
    )
    return ShardEntry(
        file=write_shard(out, part.number, rows),
        rows=count,
        listed=count,
        paths=paths_hash(paths),
        listing=listing_hash(paths, [_NO_STAT] * count),
        content=content_hash(paths, [d.tobytes() for d in digests]),
        rejects=(),
    )


def _copy(source: Path, out: Path, file: FileEntry) -> None:
    with temporary_file((out / file.name).parent) as temporary:
        shutil.copyfile(source / file.name, temporary)
        commit(temporary, out / file.name)


def _perturbed(
    store: Store, model: ConditionedEmbedder, part: _Part, seed: int, device: str
) -> EncodedBatch:
    """Perturbed maps of the part's rows, with P and predictions of just these maps."""
    generator = np.random.default_rng([seed, part.number])
    others = generator.integers(len(store), size=len(part.rows))
    batches = []
    for start in range(0, len(part.rows), _BATCH):
        own = slice(start, start + _BATCH)
        with torch.inference_mode():
            pair = [
                dequantise(store.quantised(rows[own])[0], store.grid, device)
                for rows in (part.rows, others)
            ]
            maps = perturb_maps(pair[0], pair[1], generator)
            keys = model.keys(maps)
            predicted = model.predict(maps, keys).cpu().numpy().astype(np.float16)
            batches.append(EncodedBatch(quantise(maps), quantise(keys), predicted))
    return EncodedBatch(
        _joined([b.maps for b in batches]),
        _joined([b.keys for b in batches]),
        np.concatenate([b.predicted for b in batches]),
    )


def _joined(parts: list[QuantisedMaps]) -> QuantisedMaps:
    return QuantisedMaps(
        np.concatenate([p.values for p in parts]), np.concatenate([p.scales for p in parts])
    )


def _gallery(store: Store, out: Path, files: list[ShardFile], parts: list[_Part]) -> FileEntry:
    """The gallery file: rows, labels and splits of the images that the rows were made from."""
    count = int(store.rows.max()) + 1
    labels = np.zeros((count, store.schema.size), np.int8)
    splits = np.zeros(count, store.gallery.splits.dtype)
    labels[store.rows], splits[store.rows] = store.labels(), store.gallery.splits
    listed = []
    for file, part in zip(files, parts, strict=True):
        # A copied shard remembers where its images stood among those listed, rejects included.
        own = np.zeros(int(file.rows.listed.max()) + 1, np.int64)
        own[file.rows.listed] = store.rows[part.rows]
        listed.append(own)
    return write_gallery(out, files, listed, labels, splits)
