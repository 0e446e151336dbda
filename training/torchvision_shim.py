"""torchvision beside a torch without CUDA; every use of torchvision goes through this module.

Every torchvision wheel on PyPI for Linux is a CUDA build. Beside a CPU build of torch its
compiled operators do not load, and the import dies with `operator torchvision::nms does not
exist` while it registers a fake kernel for one of them. Models and transforms need none of these
operators, so on exactly that error the schemas of `nms` and `qnms` are declared here (they stay
without a kernel) and the import is done again. `torchvision.io` and `ops.nms` do not work then.
"""

from __future__ import annotations

import importlib
import sys

import torch

_library: torch.library.Library | None = None  # kept alive: the declarations die with it


def _import_torchvision() -> None:
    global _library
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        for name in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            _library.define(  # type: ignore[no-untyped-call]
                f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        importlib.import_module("torchvision")


_import_torchvision()

from torchvision import models  # noqa: E402
from torchvision.transforms import v2 as transforms  # noqa: E402

__all__ = ["models", "transforms"]
