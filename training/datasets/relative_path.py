"""Image paths that label files name: relative to the dataset's folder and inside of it."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

from training.errors import DataError


def relative_path(path: str, where: str) -> str:
    """Check a path that a label file names; a label file may not reach outside its folder.

    Args:
        path: the path as written.
        where: file and line, for the message.

    Returns:
        `path` unchanged.

    Raises:
        DataError: if it is empty, absolute (POSIX or Windows), has a `..` part or a NUL character.
    """
    # Nearly every path passes here, and a dataset has hundreds of thousands of them.
    if path and path[0] not in "/\\" and ".." not in path and ":" not in path and "\0" not in path:
        return path
    windows = PureWindowsPath(path)
    leaves = (
        PurePosixPath(path).is_absolute()
        or windows.is_absolute()
        or bool(windows.drive or windows.root)
        or ".." in windows.parts
    )
    if not path or leaves or "\0" in path:
        raise DataError(
            f"{where}: {path!r} is not a path inside the dataset's folder; "
            "give it relative to that folder, without '..'"
        )
    return path
