"""How long, and in how much memory, a DeepFashion release of full size loads.

    python -m benchmarks.deepfashion_parse

All its lists, 289,222 images x 1000 states among them, are generated in a temporary folder (1 GB,
deleted afterwards) with the published density of about three present values an image, and loaded
in a child process whose peak memory is what is printed. To be met: 60 seconds and 2 GB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from training.datasets import deepfashion

IMAGES = 289_222
VALUES_OF_TYPES = (156, 218, 180, 216, 230)
PRESENT_SHARE = 0.0033
LIMIT_SECONDS = 60.0
LIMIT_BYTES = 2 * 10**9


def write_release(root: Path, images: int, seed: int = 0) -> int:
    """Write the lists of a release with random labels.

    Args:
        root: folder that gets `Anno_coarse/` and `Eval/`.
        images: number of images.
        seed: seed of the labels.

    Returns:
        How many states are 1.
    """
    rng = np.random.default_rng(seed)
    anno = root / "Anno_coarse"
    anno.mkdir()
    (root / "Eval").mkdir()
    # The types are mixed in the file, so that loading must permute the columns as the real one.
    types = rng.permutation(np.repeat(np.arange(1, 6), VALUES_OF_TYPES))
    names = [f"value {n:<40} {t}" for n, t in enumerate(types)]
    paths = [f"img/Sheer_Pleated_Blouse_{n // 50:05d}/img_{n:08d}.jpg" for n in range(images)]
    write_list(anno / "list_attr_cloth.txt", names)
    write_list(anno / "list_category_cloth.txt", [f"Category{n:<40} 3" for n in range(50)])
    write_list(
        anno / "list_category_img.txt", [f"{p:<72} {n % 50 + 1}" for n, p in enumerate(paths)]
    )
    write_list(anno / "list_bbox.txt", [f"{p:<72} 072 079 232 273" for p in paths])
    points = " ".join(f"0 {x:03d} {x + 7:03d}" for x in range(8))
    write_list(anno / "list_landmarks.txt", [f"{p:<72} 3 {points}" for p in paths])
    partition = [f"{p:<72} {('train', 'val', 'test')[n % 3]}" for n, p in enumerate(paths)]
    write_list(root / "Eval" / "list_eval_partition.txt", partition)
    present = 0
    with (anno / "list_attr_img.txt").open("wb") as out:
        out.write(b"%d\nimage_name attribute_labels\n" % images)
        for path in paths:
            line = bytearray(b"-1 " * len(types))
            for at in np.flatnonzero(rng.random(len(types)) < PRESENT_SHARE):
                line[3 * at : 3 * at + 3] = b" 1 "
                present += 1
            out.write(path.encode().ljust(72) + line + b"\n")
    return present


def write_list(file: Path, lines: list[str]) -> None:
    """Write a count, a header and the lines."""
    file.write_text("\n".join([str(len(lines)), "header", *lines]) + "\n", encoding="utf-8")


def measure(root: Path) -> dict[str, float]:
    """Load the release in this process: seconds, peak bytes of the process, and a checksum."""
    start = time.perf_counter()
    dataset = deepfashion.load(root)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    present = sum(int((block == 1).sum()) for block in np.array_split(dataset.labels, 64))
    return {
        "images": len(dataset),
        "values": dataset.schema.size,
        "present": present,
        "seconds": round(seconds, 2),
        "peak_bytes": peak,
    }


@click.command("deepfashion-parse")
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=IMAGES,
    show_default=True,
    help="Images of the release.",
)
@click.option("--load", "folder", type=click.Path(path_type=Path), hidden=True)
def command(images: int, folder: Path | None) -> None:
    """Generate a DeepFashion release of full size, load it, print seconds and memory."""
    if folder is not None:
        click.echo(json.dumps(measure(folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        present = write_release(Path(temporary), images)
        # A child process, so that its peak is the adapter's and not the generator's.
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.deepfashion_parse", "--load", temporary],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    figures = json.loads(child.stdout)
    correct = figures["present"] == present and figures["images"] == images
    met = figures["seconds"] < LIMIT_SECONDS and figures["peak_bytes"] < LIMIT_BYTES and correct
    click.echo(json.dumps(figures | {"correct": correct, "met": met}))
    if not met:
        sys.exit(1)


if __name__ == "__main__":
    command()
