"""A small deterministic embedder and a folder of generated JPEGs, for the tests of the indexer.

Run as a script it builds an index, or a part of one, slowly enough to be killed: tiny_gallery.py
ROOT OUT COUNT [PART].
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import nn

from indexer.build import verify, version
from indexer.build.build import BuildOptions, BuildReport, build_index
from indexer.build.parts import Part, build_part
from training.datasets.dataset import Dataset
from training.descriptor import GARMENT, DescriptorLayout
from training.images.preprocessing import Preprocessing
from training.models.config import ModelConfig
from training.models.embedder import Described
from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("neck", ("v", "round")),
        Attribute("pattern", ("floral", "striped", "plain"), multi=True),
    )
)


class TinyEmbedder(nn.Module):
    """Two convolutions and a head."""

    def __init__(self, seed: int = 0, dim: int = 8, delay: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.schema, self.dim, self.grid, self.delay = SCHEMA, dim, (2, 3), delay
        self.encoded = 0
        self.conv = nn.Conv2d(3, dim, 3, padding=1)
        self.key = nn.Conv2d(dim, dim, 1)
        self.head = nn.Linear(dim, SCHEMA.size)
        self.eval().requires_grad_(False)

    def trunk(self, images):
        self.encoded += len(images)
        time.sleep(self.delay)
        return nn.functional.adaptive_avg_pool2d(self.conv(images), self.grid) * 3

    @property
    def layout(self):
        return DescriptorLayout(SCHEMA.size, ((0, 3), (GARMENT, 4)))

    def describe(self, trunk):
        nuance = nn.functional.normalize(self.key(trunk).tanh().mean((2, 3))[:, :7], dim=-1)
        return Described(self.head(trunk.mean((2, 3))).sigmoid(), nuance)


@dataclass
class TinyCheckpoint:
    model: TinyEmbedder
    schema: Schema
    preprocessing: Preprocessing
    hash: str
    folder: Path
    config: ModelConfig = field(default_factory=ModelConfig)

    @property
    def layout(self):
        return self.model.layout


def tiny_checkpoint(folder: Path, seed: int = 0, delay: float = 0.0) -> TinyCheckpoint:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(f'{{"seed": {seed}}}')
    (folder / "model.onnx").write_text("nobody reads this")
    model = TinyEmbedder(seed, delay=delay)
    return TinyCheckpoint(model, SCHEMA, Preprocessing(size=16), f"hash{seed}", folder)


@contextmanager
def encodes_more(checkpoint: TinyCheckpoint) -> Iterator[None]:
    """Let edits and repairs encode with it, by torch, too."""
    with (
        patch.object(version, "load_checkpoint", lambda folder: checkpoint),
        patch.object(verify, "load_checkpoint", lambda folder: checkpoint),
        patch.object(version, "choose_runtime", lambda *_: ("torch", "float32")),
    ):
        yield


def write_images(root: Path, count: int) -> list[str]:
    """`count` JPEGs of noise over a colour, each of its own size."""
    names = [f"pic/{number:04d}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        generator = np.random.default_rng(number)
        size = (20 + number % 7, 16 + number % 5, 3)
        pixels = generator.integers(0, 60, size) + generator.integers(0, 195, 3)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(root / name, quality=95)
    return names


def gallery(root: Path, paths: list[str]) -> Dataset:
    n = len(paths)
    labels = np.random.default_rng(n).integers(-1, 2, (n, SCHEMA.size)).astype(np.int8)
    splits = np.array([("train", "valid", "test", "")[i % 4] for i in range(n)])
    payload = {"sku": [f"sku {i}" for i in range(n)], "price": [str(i / 2) for i in range(n)]}
    return Dataset(
        "tiny",
        root,
        SCHEMA,
        paths,
        labels,
        np.full(n, -1, dtype=np.int64),
        (),
        splits,
        items=np.arange(n) // 2,
        payload=payload,
    )


def build(
    dataset: Dataset,
    checkpoint: TinyCheckpoint,
    out: Path,
    **options,
) -> BuildReport:
    """Build the index of a whole dataset; `options` are those of `BuildOptions`."""
    return build_index(dataset, np.arange(len(dataset)), checkpoint, out, few(**options))


def few(**options) -> BuildOptions:
    """Options of a build of few images."""
    return BuildOptions(
        **{"shard_rows": 8, "batch_size": 3, "workers": 0, "runtime": "torch"} | options
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of an index by its name, but the lock, which has a process' number in it."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


if __name__ == "__main__":
    root, out, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    names = [f"pic/{number:04d}.jpg" for number in range(count)]
    shown, model = gallery(root, names), tiny_checkpoint(root / "run", delay=0.05)
    if len(sys.argv) > 4:
        part = Part.parse(sys.argv[4])
        build_part(shown, np.arange(count), model, out, part, few())
    else:
        build(shown, model, out)
