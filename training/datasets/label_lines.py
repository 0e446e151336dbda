"""Lines of a label file, and errors that name the file, the line and its text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from training.errors import DataError


def bad_line(path: Path, line: int, text: str, expected: str) -> DataError:
    """The error for a malformed line.

    Args:
        path: the label file.
        line: 1-based line number.
        text: the line as read; shortened in the message.
        expected: what should stand there.
    """
    shown = text.strip()
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return DataError(f"{path}, line {line}: expected {expected}, found {shown!r}")


def whole_number(text: str) -> int | None:
    """A number of at most twelve decimal digits, or None if `text` is anything else."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank, without its line end.

    Raises:
        DataError: if the file is absent, unreadable or not UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
