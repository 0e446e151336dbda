"""The frozen backbone's output for every image, computed once and kept in a file.

With the backbone frozen, F does not change while the head is trained; epochs then read these maps
instead of photographs. The file's name holds everything that F depends on. The file is an array as
numpy saves it, the maps in the order of the images, and behind it the failures as JSON: the place
of each image without a map, and why. One file, so that maps and places cannot come apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray

from training.augmentation import Augmentation, augment, draw_augmentation
from training.datasets.dataset import Dataset
from training.decoding import read_batches
from training.errors import DataError, ResourceError
from training.image_file import file_version
from training.models.conditioned import ConditionedEmbedder
from training.precision import autocast
from training.preprocessing import Preprocessing

CACHE = 1
"""To be counted up when code that turns an image file into F changes what it gives."""

Tick = Callable[[int], None]
"""Called with the number of images just done."""


@dataclass(frozen=True)
class Copy:
    """A changed copy of every image, the same whenever it is made.

    Args:
        number: 1 and up, which draw.
        flip: whether to mirror at random.
        crop: smallest share of each side that is kept, in (0, 1].
        precision: in which format the backbone computes, see `autocast`: nothing is evaluated on a
            copy, so rounding adds to what it is made for.
    """

    number: int
    flip: bool
    crop: float
    precision: str


@dataclass(frozen=True)
class TrunkMaps:
    """F of the rows of a dataset.

    Args:
        maps: float16 [M, channels, H, W], memory-mapped; row i belongs to `rows[i]`.
        rows: dataset rows that could be read, ascending [M] int64.
        failures: (path, reason) of those that could not.
    """

    maps: NDArray[np.float16]
    rows: NDArray[np.int64]
    failures: tuple[tuple[str, str], ...]


def trunk_maps(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: NDArray[np.int64],
    preprocessing: Preprocessing,
    cache: Path,
    device: str,
    workers: int,
    tick: Tick,
    copy: Copy | None = None,
    batch_size: int = 64,
    retry: bool = True,
) -> TrunkMaps:
    """Read the maps from the cache, or compute them.

    Images that could not be read are tried again; if one of them can be read now, all maps are
    computed anew.

    Args:
        model: gives the backbone and the grid.
        dataset: where the images are.
        rows: which of them, ascending.
        preprocessing: size and mode; a copy is cropped from the whole picture.
        cache: folder of the cache files.
        device: where the backbone runs.
        workers: decoding processes.
        tick: progress.
        copy: which changed copy of the images; None are the images themselves.
        batch_size: images a forward pass.
        retry: whether they are tried again. Of several processes that train together only the first
            one may: the others have to take the rows that it took.

    Raises:
        DataError: if no image could be read.
        ResourceError: if the cache cannot be written.
    """
    if copy is not None:
        preprocessing = preprocessing.whole
    model.eval()  # before anything runs: in training mode batch norms would note what they see
    path = cache / f"trunk-{_cache_key(model, dataset, rows, preprocessing, copy)}.npy"
    kept = _kept_maps(path, dataset, rows)
    if kept is not None and not (
        retry and _any_readable(dataset, np.setdiff1d(rows, kept.rows), preprocessing, workers)
    ):
        tick(len(rows))
        return kept
    shape = (len(rows), *_map_shape(model, preprocessing, device))
    with _temporary_file(path) as temporary:
        with _as_resource_error(cache):
            out = _reserve(temporary, shape)
        done = 0
        failures: list[tuple[int, str]] = []
        batches = [rows[i : i + batch_size].tolist() for i in range(0, len(rows), batch_size)]
        change = _draw(len(rows), copy)
        precision = "float32" if copy is None else copy.precision
        with torch.inference_mode(), autocast(precision, device):
            for batch in read_batches(dataset.root, dataset.paths, batches, preprocessing, workers):
                failures += [(int(np.searchsorted(rows, n)), why) for n, why in batch.failures]
                if batch.good:
                    images = preprocessing.normalise(torch.from_numpy(batch.pixels).to(device))
                    if change is not None:
                        places = torch.from_numpy(np.searchsorted(rows, batch.good))
                        images = augment(images, change.of(places))
                    maps = model.trunk(images.contiguous(memory_format=torch.channels_last))
                    out[done : done + len(batch.good)] = maps.half().cpu().numpy()
                    done += len(batch.good)
                tick(len(batch.images))
        found = _of_rows(out, failures, dataset, rows)
        if not done:
            first = found.failures[:1]
            raise DataError(f"no image of {dataset.root} could be read; first: {first}")
        with _as_resource_error(cache):
            out.flush()
            with temporary.open("ab") as handle:
                handle.write(json.dumps(failures).encode())
            os.replace(temporary, path)
    return found


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """A new file beside `path`, locked; it is removed after the block unless it was renamed."""
    temporary = path.with_suffix(f".{secrets.token_hex(6)}.tmp")
    try:
        with _as_resource_error(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_temporaries(path.parent)
            handle = temporary.open("wb")
        with handle:
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield temporary
    finally:
        with suppress(OSError):  # it must not hide what went wrong
            temporary.unlink(missing_ok=True)


def _remove_temporaries(cache: Path) -> None:
    """Remove what killed processes left: a live one holds a lock on its file."""
    for path in cache.glob("trunk-*.tmp"):
        with suppress(OSError), path.open("r+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_size:  # else it may be so new that its lock is yet to come
                path.unlink()


def _reserve(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.float16]]:
    """An array in the file, with its room on the disk: a write to a mapping cannot say "full"."""
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, out.offset + out.nbytes)
    return out


@contextmanager
def _as_resource_error(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(f"cannot write the map cache in {cache}: {error}") from error


def _kept_maps(path: Path, dataset: Dataset, rows: NDArray[np.int64]) -> TrunkMaps | None:
    """What a file of the cache holds; None if it is missing or damaged."""
    try:
        with path.open("rb") as handle:
            np.lib.format.read_magic(handle)
            shape, _, dtype = np.lib.format.read_array_header_1_0(handle)
            maps = np.memmap(handle, dtype, "r", handle.tell(), shape)
            handle.seek(maps.offset + maps.nbytes)
            failures = json.load(handle)
    except (OSError, ValueError):
        return None
    return _of_rows(maps, failures, dataset, rows)


def _any_readable(
    dataset: Dataset, rows: NDArray[np.int64], preprocessing: Preprocessing, workers: int
) -> bool:
    """Whether an image that could not be read now can: the disk may have failed, or memory."""
    singly = [[row] for row in rows.tolist()]
    found = read_batches(dataset.root, dataset.paths, singly, preprocessing, workers)
    return any(batch.good for batch in found)


def _of_rows(
    maps: NDArray[np.float16],
    failures: list[tuple[int, str]],
    dataset: Dataset,
    rows: NDArray[np.int64],
) -> TrunkMaps:
    """Maps of `rows` but for those at the places of `failures`."""
    good = np.delete(rows, [place for place, _ in failures])
    named = tuple((dataset.paths[rows[place]], reason) for place, reason in failures)
    return TrunkMaps(maps[: len(good)], good, named)


def _draw(count: int, copy: Copy | None) -> Augmentation | None:
    """How each image is changed: drawn for all at once, whatever the batches."""
    if copy is None:
        return None
    generator = torch.Generator().manual_seed(copy.number)
    return draw_augmentation(count, 1, copy.flip, copy.crop, 0.0, generator)


def _map_shape(
    model: ConditionedEmbedder, preprocessing: Preprocessing, device: str
) -> tuple[int, ...]:
    side = preprocessing.size
    with torch.inference_mode():
        return tuple(model.trunk(torch.zeros(1, 3, side, side, device=device)).shape[1:])


def _cache_key(
    model: ConditionedEmbedder,
    dataset: Dataset,
    rows: NDArray[np.int64],
    preprocessing: Preprocessing,
    copy: Copy | None,
) -> str:
    digest = hashlib.sha256(repr((CACHE, torch.__version__, PIL.__version__)).encode())
    for name, tensor in model.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    config = model.config
    digest.update(repr((config.backbone, config.stage, config.lower_stages, model.grid)).encode())
    digest.update(preprocessing.hash.encode())
    digest.update(repr(copy).encode())
    digest.update(str(dataset.root.resolve()).encode())
    for row in rows.tolist():
        path = dataset.paths[row]
        digest.update(path.encode("utf-8", "surrogateescape"))
        try:
            status = (dataset.root / path).stat()
        except (OSError, ValueError):
            continue  # missing: it will be listed among the failures
        digest.update(repr(file_version(status)).encode())
    return digest.hexdigest()[:24]
