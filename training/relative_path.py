"""Image paths that others name: relative to the dataset's folder and inside of it.

One rule for label files, manifests and readers, on every system: what is a path out of the folder
on POSIX or on Windows is one everywhere. A symbolic link inside the folder may point anywhere: the
owner of the folder made it.
"""

from __future__ import annotations

from pathlib import PureWindowsPath

from training.errors import DataError


def leaves_root(path: str) -> bool:
    """Whether a path, of any characters, is no path inside a folder: empty, absolute (POSIX or
    Windows, with or without a drive), with a `..` part or a NUL character."""
    # Nearly every path ends here, and a dataset has hundreds of thousands of them.
    if path and path[0] not in "/\\" and ".." not in path and ":" not in path and "\0" not in path:
        return False
    windows = PureWindowsPath(path)
    return not path or "\0" in path or bool(windows.anchor) or ".." in windows.parts


def relative_path(path: str, where: str) -> str:
    """`path` itself, which a label file names at `where` (file and line).

    Raises:
        DataError: if it leaves the folder (`leaves_root`).
    """
    if leaves_root(path):
        raise DataError(
            f"{where}: {path!r} is not a path inside the dataset's folder; "
            "give it relative to that folder, without '..'"
        )
    return path
