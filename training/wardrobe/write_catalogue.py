"""The wardrobe as a catalogue: `images/*.jpg` and `labels.csv`."""

from __future__ import annotations

from pathlib import Path

from training.wardrobe.picture import PictureJob, Progress, save_pictures
from training.wardrobe.plan import Written, plan, write_lines, written
from training.wardrobe.vocabulary import ATTRIBUTES


def write_catalogue(
    folder: Path,
    count: int,
    size: int = 224,
    seed: int = 0,
    workers: int = 1,
    masks: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Draw a wardrobe into `folder`.

    Args:
        folder: created if absent. `labels.csv` is written last, so a folder that has one is whole.
        count: number of pictures.
        size: their side in pixels.
        seed: of the wardrobe.
        workers: processes that draw.
        masks: whether to write `masks/<stem>.npz` too: a bool array [size, size] an attribute.
        progress: called with the number of pictures drawn.

    Raises:
        UsageError: if a number is out of range.
        ResourceError: if something cannot be written.
    """
    planned = plan(count, seed)
    names = [f"{p.index:06d}" for p in planned]
    jobs = [
        PictureJob(
            p.spec,
            size,
            folder / "images" / f"{name}.jpg",
            folder / "masks" / f"{name}.npz" if masks else None,
        )
        for p, name in zip(planned, names, strict=True)
    ]
    save_pictures(jobs, workers, progress, [folder / "labels.csv"])
    lines = [",".join(("image", "split", "item", *ATTRIBUTES))]
    for p, name in zip(planned, names, strict=True):
        lines.append(",".join((f"images/{name}.jpg", p.split, str(p.item), *p.labels.values())))
    write_lines(folder / "labels.csv", lines)
    return written(folder, "catalogue", planned)
