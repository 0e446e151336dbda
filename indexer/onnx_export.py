"""A model as an ONNX file: images -> chances, nuance and F, the backbone's output."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from indexer.indexable import check_indexable
from training.errors import ResourceError
from training.models.embedder import Embedder

INPUT, OUTPUTS = "images", ("chances", "nuance")
TRUNK = "trunk"
"""F, an output of the graph too: what the backbone ends in."""

_OPSET = 17  # known to every onnx >= 1.17 and onnxruntime >= 1.20


def export_onnx(model: Embedder, size: int) -> bytes:
    """A model as ONNX, with a free batch axis.

    It takes `images`, normalised [B, 3, S, S] float32, and gives `chances` [B, K], `nuance` [B, N]
    and `trunk` F [B, channels, H, W]. It is traced, so H, W and S are fixed in it.

    Args:
        model: a `torch.nn.Module` on the CPU; it is put in eval mode.
        size: S, side of its images in pixels.

    Raises:
        UsageError: the model is not M2Fashion.
        ResourceError: the model holds an operation that cannot be exported.
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
