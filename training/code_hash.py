"""A hash of source code, for the keys of what depends on it.

Code counts as what Python executes: comments, docstrings and layout do not change a hash.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "pillow")


def code_hash(root: Path, globs: Sequence[str], without: Iterable[str] = ()) -> str:
    """Of the source files below `root` that match, and the versions of what they run on."""
    sources = [
        [path.relative_to(root).as_posix(), executed(path)]
        for path in code_files(root, globs, without)
    ]
    versions = [[name, _version(name)] for name in PACKAGES]
    return hashlib.sha256(json.dumps([sources, versions]).encode()).hexdigest()


def code_files(root: Path, globs: Sequence[str], without: Iterable[str] = ()) -> list[Path]:
    """The files below `root` that match and are not left out; what is named outright is not."""
    left_out = {path for pattern in without for path in root.glob(pattern)}
    left_out -= {root / name for name in globs}
    return sorted({path for pattern in globs for path in root.glob(pattern)} - left_out)


def executed(path: Path) -> str:
    """A source file without what does not run: comments, docstrings, layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]  # 2.13.0 on the CPU and on CUDA is one version
    except PackageNotFoundError:
        return ""
