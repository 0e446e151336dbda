"""Encoding on the CPU by ONNX Runtime instead of torch: the `[onnx]` extra.

The model is exported from the loaded checkpoint for each build: no ONNX file from elsewhere is ever
opened. What ONNX Runtime gives is compared with torch on the spot. In float32 (`onnx`) it differs
in the last bits, so that a build may go on with another runtime. With the backbone in int8
(`onnx-int8`) it differs by more; descriptors of the two precisions never mix in one index.
"""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from indexer.encode.encode import Forward, check_finite, check_indexable, torch_forward, worker_pool
from training.errors import DataError, ResourceError
from training.images.batches import read_batches
from training.images.preprocessing import Preprocessing
from training.models.embedder import Described, Embedder

INPUT, OUTPUTS = "images", ("chances", "nuance")
TRUNK = "trunk"
"""F, an output of the graph too: what the backbone ends in."""

Runtime = Literal["torch", "onnx", "onnx-int8"]

Ranges = tuple[tuple[float, float], ...]
"""Lowest and highest value of each tensor of `quantised_tensors`, in its order."""

_FOLLOWING = ("MaxPool", "Add", "Relu")
_OPSET = 17  # known to every onnx >= 1.17 and onnxruntime >= 1.20
_INSTALL = 'pip install "m2fashion-retrieval[onnx]"'
_FLOAT32_ERROR = 1e-3  # of an output's norm; float32 sums in another order differ by some 1e-6
_INT8_ERROR = 0.45  # a cosine of about 0.9; a trained ResNet-18 has above 0.99
_PIECE = 8  # images at a time whose ranges are measured
_BATCH = 16  # images of a sample that are read at a time


def export_onnx(model: Embedder, size: int) -> bytes:
    """A model as ONNX, with a free batch axis.

    It takes `images`, normalised [B, 3, S, S] float32, and gives `chances` [B, K], `nuance` [B, N]
    and `trunk` F [B, channels, H, W]. It is traced, so H, W and S = `size` pixels are fixed in it.
    The model is on the CPU and put in eval mode. Raises UsageError if it is not M2Fashion, and
    ResourceError if it holds an operation that cannot be exported.
    """
    check_indexable(model)
    # In eval mode as a whole: the exporter gives back every part the mode of the outermost one,
    # and a new wrapper is in training mode, which would leave batch normalisation adapting.
    traced, written = _Described(model).eval(), io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # this exporter is deprecated; the new one needs more
            torch.onnx.export(
                traced,
                (torch.zeros(2, 3, size, size),),  # not 1, which a trace might take for constant
                written,  # type: ignore[arg-type]  # the exporter that traces takes it
                dynamo=False,
                input_names=[INPUT],
                output_names=[*OUTPUTS, TRUNK],
                dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS, TRUNK)},
                opset_version=_OPSET,
            )
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResourceError(
            f"this model cannot be exported to ONNX ({reason}); use --runtime torch"
        ) from error
    return written.getvalue()


class _Described(nn.Module):
    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with _ExactPooling():
            trunk = self.model.trunk(images)
            described = self.model.describe(trunk)
            return described.chances, described.nuance, trunk


class _ExactPooling(TorchFunctionMode):
    """Adaptive average pooling as two matrix products: ONNX has none, and a plain one, where H and
    W divide the input, takes three times as long in the cells of the pixels."""

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
        return func(*args, **kwargs or {})


def _averages(inputs: int, outputs: int) -> Tensor:
    """The matrix [outputs, inputs] of one axis of `adaptive_avg_pool2d`; its rows sum to 1."""
    matrix = torch.zeros(outputs, inputs)
    for cell in range(outputs):
        start, stop = cell * inputs // outputs, -(-(cell + 1) * inputs // outputs)
        matrix[cell, start:stop] = 1 / (stop - start)
    return matrix


def quantised_nodes(graph: Any) -> list[Any]:
    """What computes in int8, of `onnx.GraphProto` of `export_onnx`, which is in order."""
    needed = {TRUNK}
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
    found: list[Any] = []
    made: set[str] = set()
    for node in graph.node:
        convolution = node.op_type == "Conv" and node.output[0] in needed
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


def quantise_backbone(model: Any, ranges: Ranges) -> Any:
    """An `onnx.ModelProto` of `export_onnx`, which is used up, with its backbone in int8."""
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    _prepare(model.graph)
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
    """Give convolutions inputs of their own: constants, and images beside those of the pixels'
    mean and deviation, which stay float32."""
    from onnx import helper

    source, own = graph.input[0].name, "pixels"
    there = {item.name for item in graph.initializer}
    # The exporter writes equal constants once, and what stands for the others is a node.
    same = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity"}
    for node in quantised_nodes(graph):
        for place, name in enumerate(node.input):
            if name == source:
                node.input[place] = own
            elif same.get(name) in there:
                node.input[place] = same[name]
    graph.node.insert(0, helper.make_node("Identity", [source], [own]))


def load_onnxruntime() -> Any:
    """Import onnxruntime, after onnx, which the export needs; a ResourceError says what to install
    if one of them is missing or broken."""
    try:
        importlib.import_module("onnx")
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ResourceError(f"the onnx runtime is not installed ({error}); {_INSTALL}") from error


def onnx_forward(model: Embedder, size: int) -> Forward:
    """A model on the CPU, put in eval mode, run by ONNX Runtime, on one core a call, over images of
    side `size`.

    Raises ResourceError: not installed, not exportable, or results that are not torch's; DataError:
    the model gives values that are not finite.
    """
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    return _forward(exported_model(model, size), model, images, _FLOAT32_ERROR)


def int8_ranges(exported: Any, images: Tensor) -> Ranges:
    """Ranges of the activations of `exported_model`, for `onnx_int8_forward`, in float32 over some
    dozens of the gallery's images, normalised [B, 3, S, S] on the CPU."""
    model = deepcopy(exported)
    _prepare(model.graph)
    names = quantised_tensors(model.graph)
    del model.graph.output[:]
    for name in names:
        model.graph.output.add().name = name
    session = _open(model)

    def measure(piece: Tensor) -> list[tuple[float, float]]:
        values = session.run(names, {INPUT: piece.numpy()})
        return [(float(v.min()), float(v.max())) for v in values]

    pieces = torch.split(images, _PIECE)  # each core takes one at a time
    measured = np.array(list(worker_pool().map(measure, pieces)))  # [pieces, tensors, 2]
    low, high = measured[..., 0].min(0), measured[..., 1].max(0)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def onnx_int8_forward(model: Embedder, exported: Any, ranges: Ranges, images: Tensor) -> Forward:
    """As `onnx_forward`, with the backbone in int8; `exported`, of `exported_model`, stays.

    Equal ranges, of `int8_ranges`, give equal results. On `images`, normalised [B, 3, S, S] on the
    CPU, torch gives nearly the same, else a ResourceError is raised; ranges of another model are a
    DataError.
    """
    if len(ranges) != len(quantised_tensors(exported.graph)):
        raise DataError("the index holds int8 ranges of another network; build into another folder")
    quantised = quantise_backbone(deepcopy(exported), ranges)
    return _forward(quantised, model, images[:_PIECE], _INT8_ERROR)


def exported_model(model: Embedder, size: int) -> Any:
    """A model as `onnx.ModelProto`; arguments and errors as of `onnx_forward`."""
    load_onnxruntime()
    return importlib.import_module("onnx").load_from_string(export_onnx(model, size))


def _open(exported: Any) -> Any:
    """An `onnxruntime.InferenceSession`."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # each core takes images of its own, see `start_encoding`
    options.log_severity_level = 3  # errors only: warnings are about the graph, not about images
    try:
        return onnxruntime.InferenceSession(
            exported.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions have no common class but this one
        raise ResourceError(
            f"onnxruntime cannot read the exported model ({error}); use --runtime torch, "
            f"or upgrade: {_INSTALL}"
        ) from error


def _forward(exported: Any, model: Embedder, images: Tensor, limit: float) -> Forward:
    """A graph, if what it gives for some images is what torch gives but for `limit` of its norm."""
    session = _open(exported)

    def forward(images: Tensor) -> Described:
        try:
            given = session.run(list(OUTPUTS), {INPUT: images.contiguous().numpy()})
        except Exception as error:
            if "alloc" in str(error).lower():  # "Failed to allocate memory", "bad allocation"
                raise MemoryError(str(error)) from error
            raise
        chances, nuance = map(torch.from_numpy, given)
        if not nuance.shape[1]:  # an empty output is traced with the batch of the tracing
            nuance = chances.new_zeros(len(chances), 0)
        return Described(chances, nuance)

    with torch.inference_mode():
        found, right = forward(images), torch_forward(model)(images)
    for name, ours, theirs in zip(OUTPUTS, found, right, strict=True):
        error = float((ours - check_finite(theirs)).norm() / theirs.norm().clamp(min=1e-6))
        if not error <= limit:
            raise ResourceError(
                f"onnxruntime gives other {name} than torch (by {error:.3g} of their norm); "
                f"use --runtime torch, or reinstall: {_INSTALL}"
            )
    return forward


def calibration_images(
    root: Path, paths: Sequence[str], preprocessing: Preprocessing, count: int = 64
) -> Tensor:
    """A random sample of a gallery's readable images below `root`, normalised [<= count, 3, S, S];
    raises DataError if none is readable."""
    order = np.random.default_rng(0).permutation(len(paths)).tolist()
    batches = (order[start : start + _BATCH] for start in range(0, len(order), _BATCH))
    found: list[Tensor] = []
    for batch in read_batches(root, paths, batches, preprocessing, workers=0):
        found += preprocessing.normalise(torch.from_numpy(batch.pixels)).unbind()
        if len(found) >= count:
            return torch.stack(found[:count])
    if not found:
        raise DataError(f"none of the {len(paths):,} images in {root} can be read")
    return torch.stack(found)
