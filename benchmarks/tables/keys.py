"""What a run depends on, as hashes: config, data, backbone weights, code.

What is measured on a trained model has a key of its own, so that a change of the evaluation alone
evaluates again and trains nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.tables.row_file import config_tables
from training.datasets.dataset import Dataset
from training.errors import DataError
from training.files import file_sha256
from training.models.backbones import is_file
from training.run import RunConfig

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


def code_hash(root: Path, *globs: str) -> str:
    """Of the source files below `root` that match, and the versions of what they run on."""
    files = sorted({path for pattern in globs for path in root.glob(pattern)})
    sources = [[path.relative_to(root).as_posix(), executed(path)] for path in files]
    return _digest(sources, [[name, _version(name)] for name in PACKAGES])


def executed(path: Path) -> str:
    """A source file without what does not run: comments, docstrings, layout."""
    return _executed(path.read_text(encoding="utf-8"))


@functools.cache  # runs look again and again whether it has changed
def _executed(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]  # 2.13.0 on the CPU and on CUDA is one version
    except PackageNotFoundError:
        return ""


ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ground:
    """What all runs of a table rest on: hashes of data, weights and code, hexadecimal."""

    data: str
    weights: str
    training_code: str
    evaluation_code: str


def ground(dataset: Dataset, weights: str | None) -> Ground:
    """Hash data, weights and code as they are now; raises DataError for a missing weights file.

    Code counts as what Python executes in `training/`, and for figures in `retrieval/` as well.
    """
    data = data_hash(dataset)
    if dataset.items is not None:  # nuance is taught by them
        data = _digest(data, dataset.items.tolist())
    if dataset.landmarks is not None:  # some models learn from them
        data = _digest(data, hashlib.sha256(dataset.landmarks.tobytes()).hexdigest())
    training = code_hash(ROOT, "training/**/*.py")
    figures = code_hash(ROOT, "training/**/*.py", "retrieval/**/*.py")
    return Ground(data, weights_hash(weights), training, figures)


def training_key(config: RunConfig, ground: Ground) -> str:
    """Identifies a checkpoint: changes with anything that may change its weights."""
    return _digest(config_hash(config), ground.data, ground.weights, ground.training_code)


def evaluation_key(config: RunConfig, ground: Ground, how: str) -> str:
    """Identifies what was measured on a checkpoint; `how` tells the kinds of measurement apart."""
    return _digest(training_key(config, ground), ground.evaluation_code, how)


def config_hash(config: RunConfig) -> str:
    """Of all options and the seed; where the weights file lies does not count."""
    return _digest({"seed": config.seed} | config_tables(config))


def data_hash(dataset: Dataset) -> str:
    """Of labels, splits, published lists, and the images' paths and sizes in bytes.

    The folder that it lies in and the times of its files do not count.
    """
    digest = hashlib.sha256(dataset.schema.hash.encode())
    for array in (dataset.labels, dataset.category):
        digest.update(array.tobytes())
    digest.update(json.dumps([dataset.category_names, dataset.splits.tolist()]).encode())
    for name, protocol in sorted(dataset.protocols.items()):
        digest.update(name.encode())
        for entries in (protocol.queries, protocol.candidates):
            for array in (entries.rows, entries.attributes, entries.values):
                digest.update(array.tobytes())
    for path in dataset.paths:
        digest.update(path.encode("utf-8", "surrogateescape"))
        digest.update(f"\0{_size(dataset.root / path)}\0".encode())
    return digest.hexdigest()


def weights_hash(weights: str | None) -> str:
    """Of the file's content; the name itself for weights that are downloaded."""
    if weights is None:
        return "random"
    if not is_file(weights):
        return weights
    if not Path(weights).is_file():
        raise DataError(f"weights file {weights} does not exist; pass --weights FILE.safetensors")
    return file_sha256(Path(weights))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
