"""Reads malformed images in a process of its own: each is refused or read, nothing else.

`python check_images.py COUNT SEED` prints the name of every image before it
is read and what came of it, so that a crash or a hang names its image.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from malformed_images import malformed_images

from training.images.batches import read_image
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise

SLOWEST = 10.0
"""Seconds that one image may take on a busy machine; it takes milliseconds."""


def check_image(folder: Path, name: str, content: bytes, preprocessing: Preprocessing) -> str:
    """Write an image, read it as a build does and say `refused` or `read`.

    Raises:
        AssertionError: if it is neither (no reason, wrong shape, not finite), or slow.
    """
    (folder / name).write_bytes(content)
    start = time.monotonic()
    image = read_image(folder, name, preprocessing)
    took = time.monotonic() - start
    assert took < SLOWEST, f"{name}: {took:.1f} s"
    if image.pixels is None:
        assert image.reason, f"{name}: refused without a reason"
        assert "memory" not in image.reason, f"{name}: {image.reason}"
        return "refused"
    size = preprocessing.size
    assert image.reason == "", f"{name}: read, but {image.reason}"
    assert image.pixels.shape == (3, size, size), f"{name}: {image.pixels.shape}"
    assert image.pixels.dtype == np.uint8, f"{name}: {image.pixels.dtype}"
    assert normalise(torch.from_numpy(image.pixels)[None], preprocessing).isfinite().all(), name
    return "read"


def check_images(count: int, seed: int) -> Counter[str]:
    """Check so many malformed images in a subprocess.

    Returns:
        How many were `refused` and how many `read`.

    Raises:
        AssertionError: if one crashed, hung or broke a promise; it says which.
    """
    command = [sys.executable, __file__, str(count), str(seed)]
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60 + count / 2,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stdout or b"").decode()
        raise AssertionError(f"hung at {said.splitlines()[-1:]}") from None
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"exit {done.returncode} at {lines[-1:]}: {done.stderr[-2000:]}"
    assert done.stderr == "", done.stderr[-2000:]
    return Counter(line.split()[-1] for line in lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name, content in malformed_images(int(sys.argv[1]), int(sys.argv[2])):
            print(name, end=" ", flush=True)
            print(check_image(Path(folder), name, content, Preprocessing(size=32)), flush=True)
