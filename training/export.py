"""A trained M2Fashion as ONNX files in its checkpoint, so that only training needs torch.

`model.onnx` is the model in float32, `model.int8.onnx` the same with its backbone in int8, which is
faster on a CPU. Each takes and gives what `INPUTS` and `OUTPUTS` say, with all axes of images and
conditions free, and names the checkpoint, the preprocessing and the schema that it was made of.
Both are measured against torch before they are written; no ONNX file from elsewhere is opened here.
"""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from training.checkpoint import (
    CARD,
    CHECKPOINT_KEY,
    INPUTS,
    ONNX,
    ONNX_INT8,
    OUTPUTS,
    PREPROCESSING_KEY,
    SCHEMA_KEY,
    Checkpoint,
    model_card,
)
from training.device import open_session
from training.errors import DataError, ResourceError
from training.files import write_file
from training.images.batches import read_batches
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.models.m2fashion import M2Fashion
from training.report import Difference, Parity

TRUNK = "trunk"
"""F in the graph: what the backbone ends in."""

PICTURES = 96
"""Training pictures that `export_checkpoint` is best given."""

_CALIBRATED = 64  # of them, at most: the ranges of int8 are those of these
_HELD_OUT = 32  # of them, at most: parity is measured on these
_FOLLOWING = ("MaxPool", "Add", "Relu")
_OPSET = 17  # known to every onnx >= 1.17 and onnxruntime >= 1.22
_INSTALL = 'pip install "m2fashion-retrieval[train]"'
_FLOAT32_ERROR = 1e-3  # of an output's norm; float32 sums in another order differ by some 1e-6
_INT8_ERROR = 0.45  # a cosine of about 0.9; a trained ResNet-18 has above 0.99
_PIECE = 8  # images at a time that a graph or the model is run on
_BATCH = 16  # pictures of a sample that are read at a time

Pixels = NDArray[np.uint8]
Ranges = tuple[tuple[float, float], ...]
"""Lowest and highest value of each tensor of `quantised_tensors`, in its order."""


def load_exporters() -> Any:
    """The module onnx; a ResourceError says what to install if it or onnxruntime is missing or
    broken."""
    try:
        importlib.import_module("onnxruntime")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ResourceError(f"a model cannot be exported to ONNX ({error}); {_INSTALL}") from error


def sample_pictures(root: Path, paths: Sequence[str], preprocessing: Preprocessing) -> Pixels:
    """At most `PICTURES` of the readable pictures below `root`, drawn with a fixed seed: uint8
    [B, 3, S, S]. Raises DataError if none is readable."""
    order = np.random.default_rng(0).permutation(len(paths)).tolist()
    batches = (order[start : start + _BATCH] for start in range(0, len(order), _BATCH))
    found: list[Pixels] = []
    for batch in read_batches(root, paths, batches, preprocessing, workers=0):
        found += list(batch.pixels)
        if len(found) >= PICTURES:
            break
    if not found:
        raise DataError(f"none of the {len(paths):,} images in {root} can be read")
    return np.stack(found[:PICTURES])


def export_checkpoint(checkpoint: Checkpoint, images: Pixels) -> Parity | None:
    """Write both files of a checkpoint, whose model is on the CPU, and say in its card how far they
    are from torch; None, and nothing is written, if the model is not M2Fashion or knows no
    attributes, and so has no chances.

    Args:
        checkpoint: as it is on disk.
        images: uint8 [B, 3, S, S], at least one, best `PICTURES` of what it was trained on. The
            last third, at most 32, is what parity is measured on, the others give the ranges of
            int8; a single one does both.

    A network that int8 ruins has no file of it. Raises ResourceError: onnx or onnxruntime is
    missing, the model holds an operation that cannot be exported, a result in float32 is not
    torch's, or a file cannot be written.
    """
    model = checkpoint.model
    if not (isinstance(model, M2Fashion) and checkpoint.schema.size):
        return None
    held = min(_HELD_OUT, len(images) // 3)
    shown = images[-held:] if held else images
    conditions = model.type_conditions.numpy()
    right = _by_torch(model, checkpoint.preprocessing, shown, conditions)

    def write(name: str, graph: Any, limit: float) -> Difference | str:
        """How far a graph is from torch; if that is too far, it is not written: in words."""
        content = graph.SerializeToString()
        found = _by_onnx(content, shown, conditions)
        for output, ours, theirs in zip(OUTPUTS, found, right, strict=True):
            error = np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-6)
            if not error <= limit:
                return f"other {output} than torch (by {error:.3g} of their norm)"
        write_file(checkpoint.folder / name, content)
        return _difference(model, found, right)

    graph = exported(model, checkpoint.preprocessing)
    for key, value in (
        (CHECKPOINT_KEY, checkpoint.hash),
        (PREPROCESSING_KEY, checkpoint.preprocessing.hash),
        (SCHEMA_KEY, checkpoint.schema.hash),
    ):
        graph.metadata_props.add(key=key, value=value)
    whole = write(ONNX, graph, _FLOAT32_ERROR)
    if isinstance(whole, str):
        raise ResourceError(f"{ONNX} would give {whole}; reinstall: {_INSTALL}")
    ranges = measured_ranges(graph, images[: len(images) - held][:_CALIBRATED])
    int8 = write(ONNX_INT8, quantise_backbone(graph, ranges), _INT8_ERROR)
    parity = Parity(len(shown), whole, None if isinstance(int8, str) else int8)
    card = model_card(model, checkpoint.preprocessing, checkpoint.training, parity)
    write_file(checkpoint.folder / CARD, card.encode())
    return parity


def exported(model: M2Fashion, preprocessing: Preprocessing) -> Any:
    """A model on the CPU, which is put in eval mode, and its preprocessing as `onnx.ModelProto`.

    It is traced, so S, H and W are fixed in it. Raises as `export_checkpoint`.
    """
    onnx = load_exporters()
    # In eval mode as a whole: the exporter gives back every part the mode of the outermost one,
    # and a new wrapper is in training mode, which would leave batch normalisation adapting.
    traced, written = _Described(model, preprocessing).eval(), io.BytesIO()
    # Not 1, which a trace might take for constant.
    images = torch.zeros(2, 3, preprocessing.size, preprocessing.size, dtype=torch.uint8)
    conditions = torch.zeros(3, model.schema.size)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # this exporter is deprecated; the new one needs more
            torch.onnx.export(
                traced,
                (images, conditions),
                written,  # type: ignore[arg-type]  # the exporter that traces takes it
                dynamo=False,
                input_names=list(INPUTS),
                output_names=[*OUTPUTS, TRUNK],
                dynamic_axes={name: {0: "images"} for name in (INPUTS[0], *OUTPUTS)}
                | {INPUTS[1]: {0: "conditions"}, OUTPUTS[2]: {0: "images", 1: "conditions"}},
                opset_version=_OPSET,
            )
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResourceError(f"this model cannot be exported to ONNX ({reason})") from error
    found = onnx.load_from_string(written.getvalue())
    del found.graph.output[len(OUTPUTS)]  # the tensor keeps its name, which is what it is for
    _prepare(found.graph)
    return found


class _Described(nn.Module):
    def __init__(self, model: M2Fashion, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.preprocessing = model, preprocessing

    def forward(self, images: Tensor, conditions: Tensor) -> tuple[Tensor, ...]:
        """Chances [B, K], nuance [B, N], attention [B, C, H, W] and F, of uint8 images
        [B, 3, S, S] and label states [C, K]."""
        model = self.model
        with _Constants():
            trunk = model.trunk(normalise(images, self.preprocessing))
            standard = model.standardise(trunk)
            maps = model.reduce(standard)
            keys = model.keys(maps)
            described = model.describe_maps(standard, maps, keys)
            # `M2Fashion.attention`, of all conditions at once.
            alpha = model.spatial.weights(keys, model.spatial_embedding(conditions.unsqueeze(0)))
            attention = alpha.reshape(*alpha.shape[:2], *maps.shape[2:])
            return described.chances, described.nuance, attention, trunk


class _Constants(TorchFunctionMode):
    """What ONNX cannot do and the size of images settles. Adaptive average pooling becomes two
    matrix products: a plain one, where H and W divide the input, takes three times as long in the
    cells of the pixels. Embeddings of positions, which alone are resampled smoothly, are so once.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.adaptive_avg_pool2d:
            images, cells = args
            height, width = (cells, cells) if isinstance(cells, int) else cells
            # int: within a trace a size is a tensor, and the graph is for one size of images.
            rows, columns = int(images.shape[-2]), int(images.shape[-1])
            return _averages(rows, height) @ images @ _averages(columns, width).T
        if func is F.interpolate and (kwargs or {}).get("antialias"):
            given = kwargs or {}
            size = [int(side) for side in given["size"]]
            found: Tensor = func(*args, **given | {"size": size})
            return torch.from_numpy(found.numpy())
        return func(*args, **kwargs or {})


def _averages(inputs: int, outputs: int) -> Tensor:
    """The matrix [outputs, inputs] of one axis of `adaptive_avg_pool2d`; its rows sum to 1. By
    numpy: a trace would also hold how it is made."""
    matrix = np.zeros((outputs, inputs), dtype=np.float32)
    for cell in range(outputs):
        start, stop = cell * inputs // outputs, -(-(cell + 1) * inputs // outputs)
        matrix[cell, start:stop] = 1 / (stop - start)
    return torch.from_numpy(matrix)


def quantised_nodes(graph: Any) -> list[Any]:
    """What computes in int8, of `onnx.GraphProto` of `exported`, which is in order."""
    needed = {TRUNK}
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
    found: list[Any] = []
    made: set[str] = set()
    same = {node.output[0] for node in graph.node if node.op_type == "Identity"}
    constant = {item.name for item in graph.initializer} | same  # a weight may be computed
    for node in graph.node:
        convolution = (
            node.op_type == "Conv" and node.output[0] in needed and node.input[1] in constant
        )
        if convolution or (node.op_type in _FOLLOWING and made.issuperset(node.input)):
            found.append(node)
            made.update(node.output)
    return found


def quantised_tensors(graph: Any) -> list[str]:
    """Names of the activations that become uint8, in the order of the graph."""
    names: dict[str, None] = {}
    for node in quantised_nodes(graph):
        taken = node.input[:1] if node.op_type == "Conv" else node.input  # no weights
        names |= dict.fromkeys([*taken, *node.output])
    return list(names)


def measured_ranges(model: Any, images: Pixels) -> Ranges:
    """Ranges of the activations of `exported`, in float32 over uint8 images [B, 3, S, S]."""
    model = deepcopy(model)
    names = quantised_tensors(model.graph)
    del model.graph.output[:]
    for name in names:
        model.graph.output.add().name = name
    session = _session(model.SerializeToString())
    none = np.zeros((1, session.get_inputs()[1].shape[1]), dtype=np.float32)
    values = (session.run(names, dict(zip(INPUTS, (p, none), strict=True))) for p in _cut(images))
    measured = np.array([[(v.min(), v.max()) for v in piece] for piece in values])
    low, high = measured[..., 0].min(0), measured[..., 1].max(0)  # [pieces, tensors, 2] before
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def quantise_backbone(model: Any, ranges: Ranges) -> Any:
    """An `onnx.ModelProto` of `exported`, which is used up, with its backbone in int8."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    nodes = quantised_nodes(model.graph)
    bounds = {
        name: (np.float32(low), np.float32(high))
        for name, (low, high) in zip(quantised_tensors(model.graph), ranges, strict=True)
    }
    quantiser = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, bounds),
        nodes_to_quantize=[node.name for node in nodes],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", *_FOLLOWING],
        extra_options={},
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    return quantiser.model.model


def _prepare(graph: Any) -> None:
    """Give convolutions inputs of their own, for int8: constants, and images beside those of the
    pixels' mean and deviation, which stay float32."""
    from onnx import helper

    nodes, own = quantised_nodes(graph), "pixels"
    source = nodes[0].input[0]
    there = {item.name for item in graph.initializer}
    # The exporter writes equal constants once, and what stands for the others is a node.
    same = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity"}
    first = next(n for n, node in enumerate(graph.node) if source in node.input)
    for node in nodes:
        for place, name in enumerate(node.input):
            if name == source:
                node.input[place] = own
            elif same.get(name) in there:
                node.input[place] = same[name]
    graph.node.insert(first, helper.make_node("Identity", [source], [own]))


def _cut(images: Pixels) -> Iterator[Pixels]:
    return (images[start : start + _PIECE] for start in range(0, len(images), _PIECE))


def _session(content: bytes) -> Any:
    """An `onnxruntime.InferenceSession`."""
    try:
        return open_session(content, torch.get_num_threads())
    except Exception as error:  # its exceptions have no common class but this one
        raise ResourceError(
            f"onnxruntime cannot read the exported model ({error}); upgrade: {_INSTALL}"
        ) from error


Outputs = list[NDArray[np.float32]]
"""An array for each of `OUTPUTS`."""


def _by_onnx(content: bytes, images: Pixels, conditions: NDArray[np.float32]) -> Outputs:
    session = _session(content)
    feeds = (dict(zip(INPUTS, (piece, conditions), strict=True)) for piece in _cut(images))
    found = zip(*(session.run(list(OUTPUTS), feed) for feed in feeds), strict=True)
    return [np.concatenate(pieces) for pieces in found]


@torch.inference_mode()
def _by_torch(
    model: M2Fashion, preprocessing: Preprocessing, images: Pixels, conditions: NDArray[np.float32]
) -> Outputs:
    found = []
    for piece in _cut(images):
        trunk = model.trunk(normalise(torch.from_numpy(piece), preprocessing))
        maps = model.reduce(model.standardise(trunk))
        seen = [
            model.attention(maps, condition) for condition in torch.from_numpy(conditions)[:, None]
        ]
        found.append((*model.describe(trunk), torch.stack(seen, 1)))
    return [torch.cat(pieces).numpy() for pieces in zip(*found, strict=True)]


def _difference(model: M2Fashion, found: Outputs, right: Outputs) -> Difference:
    chances = np.abs(found[0] - right[0])
    ends = np.cumsum([size for _, size in model.layout.groups])[:-1]
    both = zip(np.split(found[1], ends, 1), np.split(right[1], ends, 1), strict=True)
    cosines = np.array([(ours * theirs).sum(-1) for ours, theirs in both])  # of unit vectors
    alike = (float(cosines.min()), float(cosines.mean())) if model.layout.nuance else (None, None)
    return Difference(float(chances.max()), float(chances.mean()), *alike)
