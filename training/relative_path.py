"""Image paths that others name: relative to the dataset's folder and inside of it.

One rule for label files, manifests and readers, on every system: what is a path out of the folder
on POSIX or on Windows is one everywhere. A symbolic link inside the folder may point anywhere: the
owner of the folder made it.
"""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

from training.errors import DataError


def leaves_root(path: str) -> bool:
    """Whether a path is no path inside a folder.

    Args:
        path: as written; any characters, also surrogate escapes.

    Returns:
        True if it is empty, absolute (POSIX or Windows, with or without a drive), has a `..` part
        between slashes or backslashes, or a NUL character.
    """
    # Nearly every path ends here, and a dataset has hundreds of thousands of them.
    if path and path[0] not in "/\\" and ".." not in path and ":" not in path and "\0" not in path:
        return False
    windows = PureWindowsPath(path)
    return (
        not path
        or "\0" in path
        or PurePosixPath(path).is_absolute()
        or bool(windows.drive or windows.root)
        or ".." in windows.parts
    )


def relative_path(path: str, where: str) -> str:
    """Check a path that a label file names; a label file may not reach outside its folder.

    Args:
        path: the path as written.
        where: file and line, for the message.

    Returns:
        `path` unchanged.

    Raises:
        DataError: if it leaves the folder (`leaves_root`).
    """
    if leaves_root(path):
        raise DataError(
            f"{where}: {path!r} is not a path inside the dataset's folder; "
            "give it relative to that folder, without '..'"
        )
    return path
