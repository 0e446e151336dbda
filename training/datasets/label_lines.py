"""Lines of a label file, and errors that name the file, the line and its text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from training.errors import DataError
from training.relative_path import relative_path


class Line(NamedTuple):
    """A line of `file`; its 1-based number, its text without the line end."""

    file: Path
    number: int
    text: str

    def error(self, expected: str) -> DataError:
        """The error for a malformed line: what should stand there, and what does."""
        shown = self.text.strip()
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return DataError(f"{self.file}, line {self.number}: expected {expected}, found {shown!r}")

    def path(self, text: str) -> str:
        """`text` as a path inside the dataset's folder; DataError if it leaves it."""
        return relative_path(text, f"{self.file}, line {self.number}")

    def coordinates(self, fields: Sequence[str]) -> list[float]:
        """The fields as coordinates in pixels; DataError if one is no finite number."""
        try:
            numbers = [float(field) for field in fields]
        except ValueError:
            raise self.error("numbers after the path") from None
        if not all(abs(number) < 1e9 for number in numbers):
            raise self.error("coordinates in pixels")
        return numbers


def whole_number(text: str) -> int | None:
    """A number of at most twelve decimal digits, or None if `text` is anything else."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def lines_of(path: Path) -> Iterator[Line]:
    """Each line that is not blank; DataError if the file is absent, unreadable or not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, text in enumerate(file, start=1):
                if text.strip():
                    yield Line(path, number, text.rstrip("\r\n"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
