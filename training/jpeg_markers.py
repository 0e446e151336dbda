"""The markers of a JPEG, found as Pillow and libjpeg find them, without decoding anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

END_OF_IMAGE = 0xD9
START_OF_SCAN = 0xDA
APPLICATION_1 = 0xE1

_SIZED = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE} - {0xC8})
"""Markers that Pillow takes to be followed by a length and as many bytes."""

# In coded data FF is followed by 00 or a restart mark; before any marker FF may be repeated.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class Segment(NamedTuple):
    """A marker and what it announces.

    Args:
        code: second byte of the marker.
        start: offset of the marker in the file, in bytes.
        end: offset after its last byte; coded data follows there, or the next marker should.
    """

    code: int
    start: int
    end: int


def jpeg_markers(content: bytes) -> Iterator[Segment]:
    """Walk over the segments of the first picture; a phone may have appended a film to it.

    Args:
        content: the file's bytes.

    Yields:
        Segments up to the first `END_OF_IMAGE` after a scan; where there is none, the end of the
        file is given as one.
    """
    position, scanned = 2, False
    while found := _MARKER.search(content, position):
        position = found.end()
        code = content[position - 1]
        if code in _SIZED:
            position += max(2, int.from_bytes(content[position : position + 2], "big"))
        yield Segment(code, found.start(), position)
        if code == END_OF_IMAGE and scanned:
            return
        scanned = scanned or code == START_OF_SCAN
    yield Segment(END_OF_IMAGE, len(content), len(content))
