"""Pictures to disk, by several processes at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.errors import ResourceError, UsageError
from training.wardrobe.landmarks import Located, locate
from training.wardrobe.layout import lay_out
from training.wardrobe.regions import regions
from training.wardrobe.render import render_image
from training.wardrobe.spec import Spec
from training.without_interrupts import without_interrupts

JPEG_QUALITY = 92

Progress = Callable[[int], None]
"""Called in the parent with the number of pictures finished so far."""


@dataclass(frozen=True)
class PictureJob:
    """One picture to draw and save.

    Args:
        spec: what it shows.
        size: side in pixels.
        path: where the JPEG goes.
        masks: where the masks go (`.npz`, a bool array [size, size] an attribute), if anywhere.
        located: whether to work out box and landmarks.
    """

    spec: Spec
    size: int
    path: Path
    masks: Path | None = None
    located: bool = False


def save_picture(job: PictureJob) -> Located | None:
    """Draw and save one picture; its box and landmarks where the job asks for them."""
    spec = job.spec
    render_image(spec, job.size).save(job.path, "JPEG", quality=JPEG_QUALITY)
    if job.masks is not None:
        layout, matrix = lay_out(spec.garment, spec.pose), spec.pose.matrix()
        masks = regions(spec.garment, layout, matrix, job.size)
        np.savez_compressed(job.masks, allow_pickle=False, **masks)
    return locate(spec, job.size) if job.located else None


def save_pictures(
    jobs: Sequence[PictureJob],
    workers: int = 1,
    progress: Progress | None = None,
    labels: Sequence[Path] = (),
) -> list[Located | None]:
    """Draw and save pictures; the bytes do not depend on the number of workers.

    Args:
        jobs: what to draw.
        workers: processes; 1 draws in this one.
        progress: see `Progress`.
        labels: files that label the pictures of an earlier wardrobe in their place. They are
            removed first, so that after an interruption none tells of pictures that are no more.

    Returns:
        What `save_picture` gives for each job, in order.

    Raises:
        UsageError: if `workers` is under 1.
        ResourceError: if a file cannot be written or a worker dies.
    """
    if workers < 1:
        raise UsageError(f"workers is {workers}; use 1 or more")
    try:
        for file in labels:
            file.unlink(missing_ok=True)
        for folder in {p.parent for job in jobs for p in (job.path, job.masks) if p is not None}:
            folder.mkdir(parents=True, exist_ok=True)
        if workers == 1:
            return _collect(map(save_picture, jobs), progress)
        # Spawn: a fork of a process that runs threads of torch or faiss may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                with without_interrupts():
                    drawn = pool.map(save_picture, jobs, chunksize=16)
                return _collect(drawn, progress)
            finally:  # stopped, it does not draw the rest first
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool as error:
        raise ResourceError(
            f"one of {workers} drawing processes died, perhaps for want of memory; "
            "run again with fewer workers"
        ) from error
    except OSError as error:
        raise ResourceError(
            f"cannot write the pictures: {error}; free or choose another"
        ) from error


def _collect(results: Iterator[Located | None], progress: Progress | None) -> list[Located | None]:
    done: list[Located | None] = []
    for result in results:
        done.append(result)
        if progress is not None:
            progress(len(done))
    return done
