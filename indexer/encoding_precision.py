"""In which number format a backbone encodes a gallery; it is part of an index's identity."""

from __future__ import annotations

from indexer.onnx_runtime import Runtime
from training.errors import UsageError
from training.precision import has_fast_bfloat16

PRECISIONS = ("auto", "float32", "bfloat16")


def encoding_precision(wanted: str, runtime: Runtime, device: str) -> str:
    """`float32`, `bfloat16` or `int8`, of one of `PRECISIONS`.

    `auto` is bfloat16 on a GPU with instructions for it, else the runtime's own: never bfloat16 on
    a CPU unasked, or an index would depend on the kind of CPU.

    Raises:
        UsageError: another word, or one that the runtime does not compute in.
    """
    if wanted not in PRECISIONS:
        raise UsageError(f"unknown precision {wanted!r}; choose {', '.join(PRECISIONS)}")
    if runtime != "torch":
        own = "int8" if runtime == "onnx-int8" else "float32"
        if wanted not in ("auto", own):
            raise UsageError(
                f"runtime {runtime} computes in {own}, not in {wanted}; leave --precision out"
            )
        return own
    if wanted != "auto":
        return wanted
    return "bfloat16" if device != "cpu" and has_fast_bfloat16("cuda") else "float32"
