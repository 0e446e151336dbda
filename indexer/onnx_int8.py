"""The backbone in int8, in an exported ONNX graph: about twice float32's speed.

Its convolutions, the maximum behind the first of them and the sums of its residual blocks compute
in int8, so that maps between them are never float32; pixels, pooling to cells, the reduction and
what follows it are. Weights are 7 bits wide, with a scale a channel, so that CPUs without VNNI,
which add pairs of products in 16 bits, never saturate and every CPU gives the same results.
Activations are 8 bits wide; their ranges are measured on images of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from indexer.worker_pool import worker_pool

Ranges = tuple[tuple[float, float], ...]
"""Lowest and highest value of each tensor of `quantised_tensors`, in its order."""

_ACTIVATION, _WEIGHT = 255, 63  # steps: uint8, and int8 of 7 bits


def backbone_convolutions(graph: Any) -> list[Any]:
    """The convolutions that `trunk` depends on.

    Args:
        graph: `onnx.GraphProto` of `export_onnx`; in topological order, as ONNX demands.
    """
    needed = {"trunk"}
    found = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        needed.update(node.input)
        if node.op_type == "Conv":
            found.append(node)
    return found[::-1]


def quantised_tensors(graph: Any) -> list[str]:
    """Names of the activations that become uint8, in the order of the graph.

    They are what enters a convolution, what leaves it, and sums of two of these; the last two
    behind their ReLU if that is all that follows them.
    """
    consumers = _consumers(graph)
    convolutions = {node.output[0] for node in backbone_convolutions(graph)}
    names: dict[str, None] = {}
    for node in graph.node:
        if node.output[0] in convolutions:
            names[node.input[0]] = None
        elif node.op_type != "Add" or not all(name in names for name in node.input):
            continue
        names[_result(node, consumers)] = None
    return list(names)


def measure_ranges(
    model: Any, open_session: Callable[[Any], Any], batches: Iterable[Tensor]
) -> Ranges:
    """Run float32 and note the range of every tensor that becomes uint8.

    Args:
        model: `onnx.ModelProto` of `export_onnx`; its outputs are replaced.
        open_session: makes an `onnxruntime.InferenceSession` of it.
        batches: normalised images [B, 3, S, S], at least one batch; each core takes one at a time.

    Returns:
        One range a tensor; 0 lies in each of them.
    """
    graph = model.graph
    source = graph.input[0].name
    names = quantised_tensors(graph)
    inside = [name for name in names if name != source]
    del graph.output[:]
    for name in inside:
        graph.output.add().name = name
    session = open_session(model)

    def measure(images: Tensor) -> list[tuple[float, float]]:
        found = dict(zip(inside, session.run(inside, {source: images.numpy()}), strict=True))
        values = [found.get(name, images.numpy()) for name in names]
        return [(min(0.0, float(v.min())), max(0.0, float(v.max()))) for v in values]

    measured = np.array(list(worker_pool().map(measure, batches)))  # [batches, tensors, 2]
    low, high = measured[..., 0].min(0), measured[..., 1].max(0)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def quantise_backbone(model: Any, ranges: Ranges) -> None:
    """Let the backbone compute in int8, in place.

    Each operation is put between pairs of QuantizeLinear and DequantizeLinear, which ONNX Runtime
    fuses with it.

    Args:
        model: `onnx.ModelProto` of `export_onnx`.
        ranges: of its `quantised_tensors`.
    """
    from onnx import helper

    graph = model.graph
    constants = _Constants(graph)
    convolutions = {node.output[0] for node in backbone_convolutions(graph)}
    scales: dict[str, np.float32] = {}
    pairs: dict[str, list[Any]] = {}
    for name, (low, high) in zip(quantised_tensors(graph), ranges, strict=True):
        scales[name] = np.float32(max(high - low, 1e-6) / _ACTIVATION)
        zero = np.uint8(np.clip(np.rint(-low / scales[name]), 0, _ACTIVATION))
        grid = [constants.add(f"{name}:scale", np.array(scales[name]))]
        grid.append(constants.add(f"{name}:zero", np.array(zero)))
        pairs[name] = [
            helper.make_node("QuantizeLinear", [name, *grid], [f"{name}:uint8"]),
            helper.make_node("DequantizeLinear", [f"{name}:uint8", *grid], [f"{name}:rounded"]),
        ]
    nodes = list(pairs.get(graph.input[0].name, []))
    for node in graph.node:
        convolution = node.output[0] in convolutions
        if convolution:
            nodes += _round_weights(node, scales[node.input[0]], constants)
        for place, name in enumerate(node.input):
            # Images alone are float32 too, for the mean and deviation of the pixels.
            if name in pairs and (convolution or name != graph.input[0].name):
                node.input[place] = f"{name}:rounded"
        nodes.append(node)
        nodes += [pair for name in node.output for pair in pairs.get(name, [])]
    nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


class _Constants:
    """The constants of a graph: reads those that are there, adds new ones."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._there = {item.name: item for item in graph.initializer}
        # The exporter writes equal constants once, and what stands for the others is a node.
        self._same = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity"}

    def read(self, name: str) -> NDArray[np.float64]:
        from onnx import numpy_helper

        while name not in self._there:
            name = self._same[name]
        return np.asarray(numpy_helper.to_array(self._there[name]), dtype=np.float64)

    def add(self, name: str, value: NDArray[Any]) -> str:
        """Its name."""
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(value, name))
        return name


def _round_weights(node: Any, source: np.float32, constants: _Constants) -> list[Any]:
    """Give a convolution int8 weights and an int32 bias; the nodes that make them float32 again.

    Args:
        node: the convolution; its inputs are renamed.
        source: scale of what enters it.
        constants: of the graph.
    """
    from onnx import helper

    weights = constants.read(node.input[1])
    steps = np.abs(weights).max(axis=tuple(range(1, weights.ndim))) / _WEIGHT
    steps = np.maximum(steps, 1e-12).astype(np.float32)
    rounded = np.rint(weights / steps.reshape(-1, *[1] * (weights.ndim - 1)))
    parts = [(1, rounded.astype(np.int8), steps)]
    if len(node.input) > 2:
        both = steps * source
        limit = 2.0**31 - 1
        bias = np.clip(np.rint(constants.read(node.input[2]) / both), -limit, limit)
        parts.append((2, bias.astype(np.int32), both))
    out = []
    for place, values, scale in parts:
        name = f"{node.output[0]}:{place}"
        inputs = [constants.add(name, values), constants.add(f"{name}:scale", scale)]
        inputs.append(constants.add(f"{name}:zero", np.zeros(len(scale), values.dtype)))
        out.append(helper.make_node("DequantizeLinear", inputs, [f"{name}:float"], axis=0))
        node.input[place] = f"{name}:float"
    return out


def _consumers(graph: Any) -> dict[str, list[Any]]:
    """The nodes that take each tensor."""
    out: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            out.setdefault(name, []).append(node)
    return out


def _result(node: Any, consumers: dict[str, list[Any]]) -> str:
    """What a node gives, behind its ReLU if that alone takes it."""
    after = consumers.get(node.output[0], [])
    if len(after) == 1 and after[0].op_type == "Relu":
        return str(after[0].output[0])
    return str(node.output[0])
