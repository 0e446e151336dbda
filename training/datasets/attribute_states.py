"""DeepFashion's `list_attr_img.txt`: a path and 1000 states a line, 289,222 lines, 0.9 GB.

Read as bytes, some thousand lines at a time, so that memory holds the result and little else.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.label_lines import bad_line, whole_number
from training.errors import DataError
from training.relative_path import relative_path

LINES_A_BLOCK = 2048
_PRESENT, _UNKNOWN, _ABSENT, _BAD = 1, 0, 0xFF, 0x7F
_STATE_OF_BYTE = bytes(
    {0xFF: _ABSENT, ord("0"): _UNKNOWN, ord("1"): _PRESENT}.get(byte, _BAD) for byte in range(256)
)


@dataclass(frozen=True)
class AttributeStates:
    """Paths and their label states.

    Args:
        paths: N image paths.
        states: [N, K] int8 in {-1, 0, +1}.
    """

    paths: list[str]
    states: NDArray[np.int8]


def read_attribute_states(
    file: Path, columns: NDArray[np.int64], paths: list[str] | None = None
) -> AttributeStates:
    """Read states, with the columns brought into the schema's order.

    Args:
        file: lines of a path and K states (`1` yes, `-1` no, `0` unknown), separated by blanks.
        columns: column of the file for each column of the result, a permutation of 0..K-1.
        paths: paths of the lines, for a file that has states alone, without the count, the header
            and a path on each line (Anno_fine's `train_attr.txt`).

    Raises:
        DataError: a malformed line, a state other than 1, 0, -1, another number of states or of
            lines than promised.
    """
    k = len(columns)
    try:
        with file.open("rb") as lines:
            if lines.read(len(BOM_UTF8)) != BOM_UTF8:
                lines.seek(0)
            if paths is None:
                first, promised = 3, _count(file, lines.readline(), k)
                lines.readline()
            else:
                first, promised = 1, len(paths)
            states = np.empty((promised, k), dtype=np.int8)
            found: list[str] = []
            block = bytearray()
            done = 0
            for number, line in enumerate(lines, start=first):
                if not line.strip():
                    continue
                if len(found) == promised:
                    raise DataError(f"{file}, line {number}: more than {promised} lines of states")
                name, values = (b"", line) if paths is not None else _split(line)
                row = _states_of_line(values, k)
                if row is None:
                    form = f"{k} states 1, 0 or -1" + (" after a path" if paths is None else "")
                    raise bad_line(file, number, line.decode("utf-8", "replace"), form)
                block += row
                path = _text(file, number, name) if paths is None else paths[len(found)]
                found.append(relative_path(path, f"{file}, line {number}"))
                if len(found) - done == LINES_A_BLOCK:
                    states[done : len(found)] = _array(block, k)[:, columns]
                    done, block = len(found), bytearray()
    except FileNotFoundError:
        raise DataError(f"{file} is missing") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    if len(found) != promised:
        raise DataError(f"{file} has {len(found)} lines of states, expected {promised}")
    states[done:] = _array(block, k)[:, columns]
    return AttributeStates(found, states)


def _split(line: bytes) -> tuple[bytes, bytes]:
    """The path and the rest, which is empty where a line ends early."""
    path, *rest = line.split(None, 1)
    return path, rest[0] if rest else b""


def _states_of_line(values: bytes, k: int) -> bytes | None:
    """One byte a state (an int8), or None if these are not k states."""
    tokens = values.replace(b"-1", b"\xff").split()
    joined = b"".join(tokens)
    # Every token has at least one byte, so k tokens of k bytes in all are single bytes.
    if len(tokens) != k or len(joined) != k:
        return None
    row = joined.translate(_STATE_OF_BYTE)
    return None if _BAD in row else row


def _array(block: bytearray, k: int) -> NDArray[np.int8]:
    return np.frombuffer(block, dtype=np.int8).reshape(-1, k)


def _text(file: Path, number: int, path: bytes) -> str:
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, line {number}: the path is not UTF-8 ({error})") from error


def _count(file: Path, line: bytes, k: int) -> int:
    text = line.decode("utf-8", "replace")
    count = whole_number(text)
    if count is None:
        raise bad_line(file, 1, text, "the number of images")
    # Before memory for `count` rows is asked for: a line takes at least k digits and k blanks.
    if count * 2 * k > file.stat().st_size:
        raise DataError(f"{file}, line 1: promises {count} images, the file is too short for them")
    return count
