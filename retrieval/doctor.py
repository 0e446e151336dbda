"""What works here: the installation, a small search from nothing, a dataset, an index."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from training.errors import DataError, ResourceError, RetrieveError

State = Literal["ok", "warning", "failed"]

OPTIONAL = {
    "onnx": ("onnx", "--runtime onnx does not work"),
    "onnxruntime": ("onnx", "--runtime onnx does not work"),
}
"""Packages that may be missing: the extra that installs each, and what one goes without."""

_NEEDED = ("numpy", "pillow", "h5py", "safetensors", "xxhash", "click", "rich")
_IMAGES, _SIZE = 24, 32  # of the small search


@dataclass(frozen=True)
class Check:
    """One line of the doctor.

    Args:
        name: what was looked at.
        state: how it is.
        detail: a version, a figure, or what is wrong and what to do.
        exit_code: what the command ends with if it failed.
    """

    name: str
    state: State
    detail: str
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """As a JSON-ready dict."""
        return asdict(self)


def examine(dataset: tuple[str, Path | None] | None, index: Path | None) -> Iterator[Check]:
    """Look at everything, one check at a time.

    Args:
        dataset: name or folder, and root; None looks at none.
        index: a folder; None looks at none.

    Yields:
        Each check when it is done; none of them raises.
    """
    yield Check("python", "ok", ".".join(map(str, sys.version_info[:3])))
    yield Check("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in _NEEDED))
    yield checked("torch", _torch)
    yield checked("torchvision", _torchvision)
    yield checked("faiss", _faiss)
    yield checked("GPU", _gpu)
    yield from (_optional(name) for name in OPTIONAL)
    yield checked("search", _search)
    if dataset is not None:
        yield checked("dataset", lambda: _dataset(*dataset))
    if index is not None:
        yield checked("index", lambda: _index(index))


def checked(name: str, look: Callable[[], str | Check]) -> Check:
    """Run one check; whatever it raises is its finding."""
    try:
        found = look()
    except RetrieveError as error:
        return Check(name, "failed", str(error), error.exit_code)
    except Exception as error:  # a broken installation may raise anything
        what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return Check(name, "failed", what, ResourceError.exit_code)
    return found if isinstance(found, Check) else Check(name, "ok", found)


def _version(name: str) -> str:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return "(not installed)"


def _torch() -> str:
    import torch

    cuda = torch.version.cuda
    return f"{torch.__version__}, {f'CUDA {cuda}' if cuda else 'no CUDA'}, {_threads(torch)}"


def _threads(torch: Any) -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def _torchvision() -> str:
    from training import torchvision_shim

    torchvision_shim.models.resnet18  # noqa: B018  # it loads
    how = "" if torchvision_shim._library is None else ", its operators replaced (no CUDA in torch)"
    return f"{_version('torchvision')}{how}"


def _faiss() -> str:
    from indexer.faiss_module import faiss_distributions, load_faiss

    faiss = load_faiss()  # raises if two are installed, or if it gives wrong answers
    names = faiss_distributions(d.metadata["Name"] or "" for d in metadata.distributions())
    return f"{' '.join(names) or 'faiss'} {faiss.__version__}"


def _gpu() -> Check:
    from indexer.device import choose_device

    choice = choose_device("auto")
    if choice.device == "cpu":
        none = choice.remark is None or "no usable GPU" in choice.remark
        return Check("GPU", "ok" if none else "warning", choice.remark or "none")
    import torch

    return Check("GPU", "ok", f"{torch.cuda.get_device_name(choice.device)}, self-test passed")


def _optional(name: str) -> Check:
    if find_spec(name) is not None:
        return Check(name, "ok", _version(name))
    extra, without = OPTIONAL[name]
    hint = f'pip install "m2fashion-retrieval[{extra}]"'
    return Check(name, "ok", f"not installed: {without}; {hint}")


def _search() -> str:
    """Render a few garments, index them with an untrained model, and search by one of them."""
    from indexer.build import BuildOptions, build_index
    from retrieval.engine import Engine
    from training.checkpoint import load_checkpoint, save_checkpoint
    from training.datasets import load_dataset
    from training.models.config import ModelConfig
    from training.models.registry import build_model
    from training.preprocessing import Preprocessing
    from training.wardrobe.write_catalogue import write_catalogue

    with tempfile.TemporaryDirectory(prefix="retrieve-doctor-") as temporary:
        folder = Path(temporary)
        write_catalogue(folder / "garments", _IMAGES, _SIZE, 0, 1, False)
        dataset = load_dataset(str(folder / "garments"))
        config = ModelConfig(backbone="resnet18", stage="layer1", dim=16, grid=2)
        model = build_model(dataset.schema, config).eval()
        save_checkpoint(folder / "run", model, Preprocessing(size=_SIZE), (), {})
        rows = np.arange(len(dataset))
        checkpoint = load_checkpoint(folder / "run")
        build_index(dataset, rows, checkpoint, folder / "index", options=BuildOptions(workers=0))
        engine = Engine.open(folder / "index", "cpu")
        attribute, path = dataset.schema.attributes[0], dataset.paths[3]
        # An untrained model may find others sooner, but has to see the same twice.
        found = engine.query(dataset.root / path, top_k=_IMAGES, include_query=True)
        (row,) = [hit.row for hit in found if hit.path.name == Path(path).name]
        stored = engine.store.descriptors_of(np.array([row]))
        seen = engine.encode(dataset.root / path)
        asked = engine.store.layout.pack(seen.chances[None], seen.nuance[None])
        apart = int(np.abs(stored.astype(int) - asked.astype(int)).max())
        if apart > 1:  # of a byte, by the order of sums
            raise ResourceError(
                "a picture is seen otherwise for a query than in the index: bytes of its "
                f"descriptor differ by up to {apart}"
            )
        engine.query(dataset.root / dataset.paths[5], [f"{attribute.name}:{attribute.values[0]}"])
    return f"{_IMAGES} garments drawn, encoded, indexed and found"


def _dataset(name: str, root: Path | None) -> Check:
    from retrieval.inspection import inspect_dataset
    from training.datasets import load_dataset

    found = inspect_dataset(load_dataset(name, root))
    count = found.images["all"]
    what = f"{found.dataset}: {count:,} images, {found.values} values of {len(found.attributes)}"
    what += " attributes"
    if not count or len(found.missing) == count:
        raise DataError(f"{what}; none of its images is there")
    if found.missing:
        return Check("dataset", "warning", f"{what}; {len(found.missing):,} images are missing")
    return Check("dataset", "ok", what)


def _index(folder: Path) -> Check:
    from indexer.search import in_words
    from indexer.store import open_store

    store = open_store(folder)
    what = f"{len(store):,} images of {store.layout.width} bytes, searched by "
    what += f"{in_words(store.manifest.search)}; `retrieve verify {folder}` reads all of it"
    if store.remarks:
        return Check("index", "warning", "; ".join([*store.remarks, what]))
    if not store.root.is_dir():
        return Check("index", "warning", f"{what}; its images were in {store.root}, now gone")
    return Check("index", "ok", what)
