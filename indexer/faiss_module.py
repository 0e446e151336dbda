"""The one place that imports faiss, since three distributions install that one module.

The last one installed wins and uninstalling either breaks it, so two of them are an error.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from training.errors import ResourceError

_INSTALL = 'pip install "m2fashion-retrieval[cpu]" (or [gpu] on a machine with a CUDA GPU)'


def faiss_distributions(names: Iterable[str]) -> list[str]:
    """Those of the installed distributions that provide the module `faiss`, sorted."""
    folded = {name.lower().replace("_", "-") for name in names}
    return sorted(n for n in folded if n == "faiss" or n.startswith(("faiss-cpu", "faiss-gpu")))


@cache
def load_faiss() -> Any:
    """Import faiss, after a check that exactly one of it is installed and that it can search.

    Raises:
        ResourceError: none, two, or one that does not work; the message says what to install.
    """
    found = faiss_distributions(d.metadata["Name"] or "" for d in metadata.distributions())
    if len(found) > 1:
        raise ResourceError(
            f"{' and '.join(found)} are both installed and overwrite each other; "
            f"pip uninstall {' '.join(found)}, then {_INSTALL}"
        )
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError as error:
        what = f"{found[0]} is installed but broken ({error})" if found else "faiss is missing"
        raise ResourceError(f"{what}; {_INSTALL}") from error
    index = faiss.IndexFlatIP(2)
    index.add(np.eye(2, dtype=np.float32))
    if index.search(np.array([[0.0, 1.0]], dtype=np.float32), 1)[1].item() != 1:
        raise ResourceError(f"the installed faiss gives wrong answers; reinstall it: {_INSTALL}")
    return faiss
