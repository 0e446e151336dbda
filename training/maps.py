"""The maps of images: F, the frozen backbone's output, kept in a file; the head's in a bank.

With the backbone frozen, F does not change while the head is trained; epochs then read these maps
instead of photographs. With its stem alone frozen they read what the stem gave, a row an image.

The file's name holds everything that the maps depend on. The file is an array as numpy saves it,
the maps in the order of the images, and behind it the failures as JSON: the place of each image
without a map, and why. One file, so that maps and places cannot come apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.datasets.dataset import Dataset
from training.device import autocast
from training.errors import DataError
from training.files import TEMPORARY_PREFIX, commit, temporary_file
from training.images.batches import Reading, read_batches
from training.images.read import file_version
from training.images.tensors import Augmentation, augment, draw_augmentation, normalise
from training.models.backbones import add_weights
from training.models.embedder import ConditionedEmbedder
from training.schema import Condition

CACHE = 2
"""To be counted up when code that turns an image file into F changes what it gives."""

BATCH = 64
"""Images of a forward pass."""

Inputs = Iterator[tuple[list[int], Tensor]]
"""Dataset rows, and their normalised images [B, 3, S, S], what the stem gave [B, n], or F
[B, channels, H, W], float32."""

_Rows = NDArray[np.int64]

_ABANDONED = 24 * 3600  # seconds without a write after which a temporary file is a dead process'


@dataclass(frozen=True)
class Copy:
    """A changed copy of every image, the same whenever it is made."""

    number: int  # 1 and up, which draw
    flip: bool  # whether to mirror at random
    crop: float  # smallest share of each side that is kept, in (0, 1]
    # in which format the backbone computes, see `autocast`: nothing is evaluated on a copy, so
    # rounding adds to what it is made for
    precision: str

    def draw(self, images: int) -> Augmentation:
        """How so many images are changed: drawn for all at once, whatever the batches."""
        generator = torch.Generator().manual_seed(self.number)
        return draw_augmentation(images, 1, self.flip, self.crop, 0.0, generator)


@dataclass(frozen=True)
class MapCache:
    """Where maps are kept, and of what."""

    folder: Path
    stem: bool = False  # whether they are what the stem gave, instead of F
    # whether images that could not be read are tried again, for the disk or memory may have failed;
    # if one of them can be read now, all maps are computed anew. Of several processes that train
    # together only the first one may: the others have to take the rows that it took
    retry: bool = True


@dataclass(frozen=True)
class TrunkMaps:
    """F of the rows of a dataset, or what the stem gave for them."""

    # float16 [M, channels, H, W] or [M, n], memory-mapped; row i belongs to `rows[i]`
    maps: NDArray[np.float16]
    rows: _Rows  # dataset rows that could be read, ascending [M] int64
    failures: tuple[tuple[str, str], ...]  # (path, reason) of those that could not


def trunk_maps(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: _Rows,
    reading: Reading,
    cache: MapCache,
    copy: Copy | None = None,
) -> TrunkMaps:
    """Read the maps of `rows`, ascending, or of a copy of them, from the cache, or compute them.

    Raises:
        DataError: if no image could be read.
        ResourceError: if the cache cannot be written.
    """
    shown = reading.preprocessing if copy is None else reading.preprocessing.whole
    reading = Reading(shown, reading.workers, reading.tick)
    model.eval()  # before anything runs: in training mode batch norms would note what they see
    name = "stem" if cache.stem else "trunk"
    path = cache.folder / f"{name}-{_cache_key(model, dataset, rows, reading, copy)}.npy"
    kept = _kept_maps(path, dataset, rows)
    if kept is not None and not (cache.retry and _any_readable(dataset, kept, rows, reading)):
        reading.tick(len(rows))
        return kept
    device = next(model.parameters()).device
    with torch.inference_mode(), temporary_file(cache.folder) as temporary:
        _remove_abandoned(cache.folder)
        run = model.run_stem if cache.stem else model.trunk
        shape = run(torch.zeros(1, 3, shown.size, shown.size, device=device)).shape[1:]
        out = _reserve(temporary, (len(rows), *shape))
        unread: list[tuple[int, str]] = []
        done = 0
        for good, maps in encoded(model, dataset, rows, reading, unread, copy, cache.stem):
            out[done : done + len(good)] = maps.half().cpu().numpy()
            done += len(good)
        failures = [(int(np.searchsorted(rows, row)), reason) for row, reason in unread]
        found = _of_rows(out, failures, dataset, rows)
        if not done:
            first = found.failures[:1]
            raise DataError(f"no image of {dataset.root} could be read; first: {first}")
        out.flush()
        with temporary.open("ab") as handle:
            handle.write(json.dumps(failures).encode())
        commit(temporary, path)
    return found


def encoded(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: _Rows,
    reading: Reading,
    failures: list[tuple[int, str]],
    copy: Copy | None = None,
    stem: bool = False,
) -> Inputs:
    """Run a backbone, or its stem, over images: of each batch the rows that could be read and their
    maps; row and reason of the others are added to `failures`."""
    shown, device = reading.preprocessing, next(model.parameters()).device
    change = None if copy is None else copy.draw(len(rows))
    batches = [rows[i : i + BATCH].tolist() for i in range(0, len(rows), BATCH)]
    with autocast("float32" if copy is None else copy.precision, str(device)):
        for batch in read_batches(dataset.root, dataset.paths, batches, shown, reading.workers):
            failures += batch.failures
            if batch.good:
                images = normalise(torch.from_numpy(batch.pixels).to(device), shown)
                if change is not None:
                    places = torch.from_numpy(np.searchsorted(rows, batch.good))
                    images = augment(images, change.of(places))
                images = images.contiguous(memory_format=torch.channels_last)
                yield batch.good, model.run_stem(images) if stem else model.trunk(images)
            reading.tick(len(batch.images))


def _remove_abandoned(cache: Path) -> None:
    """Remove what killed processes left: gigabytes that nobody has written to for a day."""
    for path in cache.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


def _reserve(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float16]]:
    """An array in the file, with its room on the disk: a write to a mapping cannot say "full"."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, out.offset + out.nbytes)
    return out


def _kept_maps(path: Path, dataset: Dataset, rows: _Rows) -> TrunkMaps | None:
    """What a file of the cache holds; None if it is missing or damaged."""
    try:
        maps = np.load(path, mmap_mode="r")
        with path.open("rb") as handle:
            handle.seek(maps.offset + maps.nbytes)
            failures = json.load(handle)
    except (OSError, ValueError, EOFError):
        return None
    return _of_rows(maps, failures, dataset, rows)


def _any_readable(dataset: Dataset, kept: TrunkMaps, rows: _Rows, reading: Reading) -> bool:
    """Whether an image without a map can be read now."""
    singly, shown = [[row] for row in np.setdiff1d(rows, kept.rows).tolist()], reading.preprocessing
    found = read_batches(dataset.root, dataset.paths, singly, shown, reading.workers)
    return any(batch.good for batch in found)


def _of_rows(
    maps: NDArray[np.float16], failures: list[tuple[int, str]], dataset: Dataset, rows: _Rows
) -> TrunkMaps:
    """Maps of `rows` but for those at the places of `failures`."""
    good = np.delete(rows, [place for place, _ in failures])
    named = tuple((dataset.paths[rows[place]], reason) for place, reason in failures)
    return TrunkMaps(maps[: len(good)], good, named)


def _cache_key(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: _Rows,
    reading: Reading,
    copy: Copy | None,
) -> str:
    digest = hashlib.sha256(repr((CACHE, torch.__version__, PIL.__version__)).encode())
    add_weights(digest, model.backbone)
    config = model.config
    digest.update(repr((config.backbone, config.stage, config.lower_stages, model.grid)).encode())
    digest.update(reading.preprocessing.hash.encode())
    digest.update(repr(copy).encode())
    digest.update(str(dataset.root.resolve()).encode())
    for row in rows.tolist():
        path = dataset.paths[row]
        digest.update(path.encode("utf-8", "surrogateescape"))
        with suppress(OSError, ValueError):  # missing: it will be listed among the failures
            digest.update(repr(file_version((dataset.root / path).stat())).encode())
    return digest.hexdigest()[:24]


@dataclass(frozen=True)
class MapBank:
    """I and P of pictures, and what else is read from F."""

    model: ConditionedEmbedder  # in inference mode
    dataset: Dataset  # the M pictures, in the order of the arrays
    maps: Tensor  # I [M, *, h, w] float16
    keys: Tensor  # P [M, *, h, w] float16; its channels need not be those of I
    # average-pooled F [M, channels] float32, L2-normalised: the untrained floor
    pooled: NDArray[np.float32]
    chances: NDArray[np.float32]  # probability of every value [M, K] float32
    nuance: NDArray[np.float32]  # unit vectors side by side [M, N] float32

    @property
    def rows(self) -> NDArray[np.int64]:
        """0..M-1."""
        return self.dataset.rows_of("all")

    def embed(self, condition: Condition, rows: _Rows, chunk: int = 512) -> NDArray[np.float32]:
        """Z of `rows` of the bank under one condition: float32 [len(rows), d], L2-normalised; so
        many maps are taken to float32 at a time."""
        device = next(self.model.parameters()).device
        states = torch.from_numpy(condition).float().unsqueeze(0).to(device)
        out = np.empty((len(rows), self.model.width), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), chunk):
                part = torch.from_numpy(rows[start : start + chunk])
                maps, keys = (of[part].to(device).float() for of in (self.maps, self.keys))
                z = self.model.attend(maps, states, keys)
                out[start : start + len(part)] = z.cpu().numpy()
        return out


def bank_from_trunk(model: ConditionedEmbedder, dataset: Dataset, batches: Inputs) -> MapBank:
    """Run the head over F and keep what it gives; the model is put into inference mode."""
    model.eval()
    rows: list[int] = []
    empty = torch.zeros(0, model.dim, *model.grid, dtype=torch.float16)
    widths = (0, model.schema.size, model.layout.nuance)
    kept = [[empty], [empty], *([torch.zeros(0, width)] for width in widths)]
    with torch.inference_mode():
        for batch_rows, trunk in batches:
            if not rows:  # the first batch tells the shapes
                kept = [[] for _ in kept]
            rows += batch_rows
            standard = model.standardise(trunk)
            reduced = model.reduce(standard)
            keys = model.keys(reduced)
            described = model.describe_maps(standard, reduced, keys)
            pooled = F.normalize(trunk[:, model.last_stage].mean((2, 3)), dim=-1).float()
            found = (reduced.half(), keys.half(), pooled, *(part.float() for part in described))
            for parts, part in zip(kept, found, strict=True):
                parts.append(part.cpu())
    maps, keys, *others = (torch.cat(parts) for parts in kept)
    part = dataset.subset(np.array(rows, dtype=np.int64))
    return MapBank(model, part, maps, keys, *(other.numpy() for other in others))


def bank_from_images(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: _Rows,
    reading: Reading,
    cache: Path | None = None,
) -> tuple[MapBank, tuple[tuple[str, str], ...]]:
    """The bank of the readable images of `rows` (ascending with a cache), and (path, reason) of the
    others; a cache keeps the backbone's maps (float16), see `trunk_maps`."""
    model.eval()
    if cache is not None:
        device = next(model.parameters()).device
        stored = trunk_maps(model, dataset, rows, reading, MapCache(cache))
        starts = range(0, len(stored.rows), BATCH)
        parts = ((stored.rows[i : i + BATCH], stored.maps[i : i + BATCH]) for i in starts)
        own = ((n.tolist(), torch.from_numpy(maps).to(device).float()) for n, maps in parts)
        return bank_from_trunk(model, dataset, own), stored.failures
    failures: list[tuple[int, str]] = []
    bank = bank_from_trunk(model, dataset, encoded(model, dataset, rows, reading, failures))
    return bank, tuple((dataset.paths[row], reason) for row, reason in failures)
