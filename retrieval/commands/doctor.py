"""`retrieve doctor`: what a report of a bug needs: versions, the GPU, a small search."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import click
import numpy as np

from retrieval.console import print_json, say, stdout
from retrieval.options import JSON
from training.errors import ResourceError, RetrieveError

PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "h5py", "safetensors", "msgspec", "xxhash"),
    *("click", "rich", "onnx", "onnxruntime"),
)
_IMAGES, _SIZE = 24, 32  # of the small search


@click.command("doctor")
@JSON
def command(as_json: bool) -> int:
    """Print what a bug report needs, and search some rendered garments from nothing.

    Ends with 0 unless something failed; else with the first failure's code.
    """
    from retrieval.cli import version

    found = {
        "retrieve": (version(), 0),
        "python": (sys.version.split()[0], 0),
        "packages": (", ".join(f"{name} {_installed(name)}" for name in PACKAGES), 0),
    }
    for name, look in (("faiss", _faiss), ("GPU", _gpu), ("search", _search)):
        found[name] = checked(look)
    if as_json:
        print_json({n: {"detail": text, "exit_code": code} for n, (text, code) in found.items()})
    else:
        for name, (text, code) in found.items():
            say(f"{'FAILED' if code else 'ok':8}{name:10}{text}", stdout)
    return next((code for _, code in found.values() if code), 0)


def checked(look: Callable[[], str]) -> tuple[str, int]:
    """What a check finds, and an exit code: whatever it raises is its finding."""
    try:
        return look(), 0
    except RetrieveError as error:
        return str(error), error.exit_code
    except Exception as error:  # a broken installation may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0], ResourceError.exit_code


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _faiss() -> str:
    from indexer.search.lists import faiss_distributions, load_faiss

    faiss = load_faiss()  # raises if two are installed, or if it gives wrong answers
    return f"{' '.join(faiss_distributions()) or 'faiss'} {faiss.__version__}"


def _gpu() -> str:
    from training.device import choose_device

    choice = choose_device("auto")
    if choice.device == "cpu":
        return choice.remark or "none"
    import torch

    name = torch.cuda.get_device_name(choice.device)
    return f"{name}, CUDA {torch.version.cuda}, self-test passed"


def _search() -> str:
    """Draw plain colours, index them with an untrained model, and search by one of them."""
    if importlib.util.find_spec("torch") is None:
        return 'not tried: a model is made by torch (pip install "m2fashion-retrieval[train]")'
    from PIL import Image

    from indexer.build.build import BuildOptions, build_index
    from retrieval.engine import Engine
    from retrieval.request import Request
    from training.checkpoint import load_checkpoint, save_checkpoint
    from training.datasets import load_dataset
    from training.images.preprocessing import Preprocessing
    from training.models.config import ModelConfig, build_model

    with tempfile.TemporaryDirectory(prefix="retrieve-doctor-") as temporary:
        folder = Path(temporary)
        lines = ["image,category,colour"]
        for number in range(_IMAGES):
            colour = (9 * number, 255 - 9 * number, 40 * (number % 6))
            Image.new("RGB", (_SIZE, _SIZE), colour).save(folder / f"{number}.png")
            lines.append(f"{number}.png,{('dress', 'shirt')[number % 2]},{number % 5}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        dataset = load_dataset(str(folder))
        config = ModelConfig(backbone="resnet18", stage="layer1", dim=16, grid=2)
        model = build_model(dataset.schema, config).eval()
        save_checkpoint(folder / "run", model, Preprocessing(size=_SIZE), (), {})
        rows = np.arange(len(dataset))
        checkpoint = load_checkpoint(folder / "run")
        build_index(dataset, rows, checkpoint, folder / "index", BuildOptions(workers=0))
        engine = Engine.open(folder / "index", "cpu")
        row, seen = np.array([3]), engine.encode(dataset.root / dataset.paths[3])
        asked = engine.held.layout.pack(seen.chances[None], seen.nuance[None])
        apart = np.abs(engine.held.descriptors_of(row).astype(int) - asked.astype(int)).max()
        found = engine.query(Request(seen, top_k=_IMAGES, include_query=True))
        if apart > 1 or len(found) != _IMAGES:  # of a byte, by the order of sums
            differ = f"bytes of a picture seen twice differ by up to {apart}"
            raise ResourceError(f"{len(found)} of {_IMAGES} images found; {differ}")
    return f"{_IMAGES} pictures drawn, encoded, indexed and found"
