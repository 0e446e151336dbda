"""Which image of a gallery is meant by a path on the command line."""

from __future__ import annotations

import os
from pathlib import Path

from training.relative_path import leaves_root


def paths_in(root: Path, given: str) -> list[str]:
    """What a path may mean relative to a gallery's folder, likeliest first.

    Args:
        root: the gallery's folder, absolute.
        given: relative to the working folder or to `root`, or absolute.

    Returns:
        Paths inside `root`; none if it can only be outside.
    """
    out = []
    here = Path(os.path.abspath(given)) if "\0" not in given else Path(given)
    for absolute in (here, here.parent.resolve() / here.name):  # the folder may be a link
        if absolute.is_relative_to(root) and absolute != root:
            out.append(absolute.relative_to(root).as_posix())
    if not Path(given).is_absolute():
        out.append(given)
    return [path for path in dict.fromkeys(out) if not leaves_root(path)]
