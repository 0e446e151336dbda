"""The backbone in int8, in an exported ONNX graph: about twice float32's speed.

Its convolutions, and the maxima, sums and ReLUs that take nothing but what these give, compute in
int8, so that maps between them are never float32; pixels, pooling to cells, the reduction and what
follows it are. Weights are 7 bits wide, with a scale a channel, so that CPUs without VNNI, which
add pairs of products in 16 bits, never saturate and every CPU gives the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor

from indexer.encode import worker_pool
from indexer.onnx_export import TRUNK

Ranges = tuple[tuple[float, float], ...]
"""Lowest and highest value of each tensor of `quantised_tensors`, in its order."""

_FOLLOWING = ("MaxPool", "Add", "Relu")


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


def measure_ranges(
    model: Any, open_session: Callable[[Any], Any], batches: Iterable[Tensor]
) -> Ranges:
    """Run float32 and note the range of every tensor that becomes uint8.

    Args:
        model: `onnx.ModelProto` of `export_onnx`; its outputs are replaced.
        open_session: makes an `onnxruntime.InferenceSession` of it.
        batches: normalised images [B, 3, S, S], at least one batch; each core takes one at a time.
    """
    graph = model.graph
    _prepare(graph)
    names = quantised_tensors(graph)
    del graph.output[:]
    for name in names:
        graph.output.add().name = name
    session = open_session(model)

    def measure(images: Tensor) -> list[tuple[float, float]]:
        values = session.run(names, {graph.input[0].name: images.numpy()})
        return [(float(v.min()), float(v.max())) for v in values]

    measured = np.array(list(worker_pool().map(measure, batches)))  # [batches, tensors, 2]
    low, high = measured[..., 0].min(0), measured[..., 1].max(0)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def quantise_backbone(model: Any, ranges: Ranges) -> Any:
    """The model with its backbone in int8; what is given is used up.

    Args:
        model: `onnx.ModelProto` of `export_onnx`.
        ranges: of its `quantised_tensors`.
    """
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
