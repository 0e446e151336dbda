"""An exported model, run on the CPU by ONNX Runtime: what encodes where there is no torch."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.encode.encode import EncodedBatch, Forward
from training.checkpoint import CHECKPOINT_KEY, INPUTS, OUTPUTS
from training.errors import DataError, ResourceError
from training.schema import Condition

_INSTALL = "pip install onnxruntime"


@dataclass(frozen=True)
class OnnxModel:
    """A model that `training/export.py` wrote; threads may share it."""

    session: Any  # onnxruntime.InferenceSession

    @property
    def checkpoint(self) -> str:
        """Hash of the checkpoint that it was exported from."""
        found: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        return found.get(CHECKPOINT_KEY, "")

    @property
    def forward(self) -> Forward:
        """Chances and nuance of images, on one core a call."""
        return Forward(self._describe)

    def attention(self, pixels: NDArray[np.uint8], conditions: Sequence[Condition]) -> Any:
        """Spatial attention maps [C, H, W] float32 of one image uint8 [3, S, S] under C conditions
        [K] int8 each; each map sums to 1."""
        states = np.stack(conditions).astype(np.float32)
        return self._run(OUTPUTS[2:], pixels[None], states)[0][0]

    def _describe(self, pixels: NDArray[np.uint8]) -> EncodedBatch:
        values = self.session.get_inputs()[1].shape[1]
        nobody = np.zeros((1, values), np.float32)  # attention is not asked for
        return EncodedBatch(*self._run(OUTPUTS[:2], pixels, nobody))

    def _run(self, names: Sequence[str], pixels: NDArray[np.uint8], states: Any) -> list[Any]:
        given = dict(zip(INPUTS, (np.ascontiguousarray(pixels), states), strict=True))
        try:
            found: list[Any] = self.session.run(list(names), given)
        except Exception as error:  # its exceptions have no common class but this one
            if "alloc" in str(error).lower():  # "Failed to allocate memory", "bad allocation"
                raise MemoryError(str(error)) from error
            raise
        return found


def open_onnx(content: bytes, name: str) -> OnnxModel:
    """Read an exported model; errors call it `name`. Raises ResourceError if onnxruntime is missing
    or too old for it, DataError if it is no model."""
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ResourceError(f"onnxruntime is not installed ({error}); {_INSTALL}") from error
    onnxruntime.disable_telemetry_events()  # nobody is told of what is encoded here
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # each core takes images of its own, see `start_encoding`
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: warnings are about the graph, not about images
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name} cannot be read by onnxruntime ({why})") from error
    return OnnxModel(session)
