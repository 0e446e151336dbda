"""An exported model, run on the CPU by ONNX Runtime: what encodes where there is no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.encode.encode import EncodedBatch, Forward
from training.checkpoint import CHECKPOINT_KEY, INPUTS, OUTPUTS
from training.device import open_session
from training.errors import DataError, ResourceError
from training.schema import Condition


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
        session = open_session(content)  # one core: each takes images of its own
    except ResourceError:
        raise
    except Exception as error:  # as above
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name} cannot be read by onnxruntime ({why})") from error
    return OnnxModel(session)
