"""The parts of an image file, and those of them that Pillow is shown.

Pillow reads texts, previews and resolutions while it opens a file, and fails at an odd one though
the pixels beside it are sound; it even takes a PNG's text named `interlace` for the order of its
rows. It has no switch for that, so that such parts are cut out first.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

END_OF_IMAGE, START_OF_SCAN, APPLICATION_1 = 0xD9, 0xDA, 0xE1
_APPLICATIONS = range(0xE0, 0xF0)

# Markers that Pillow takes to be followed by a length and as many bytes.
_SIZED = frozenset({*range(0xC0, 0xD0), *range(0xDA, 0xF0), 0xFE} - {0xC8})
# In coded data FF is followed by 00 or a restart mark; before any marker FF may be repeated.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# Of JPEG's application segments: code -> (how it begins, fewest bytes with marker and length).
_JPEG_COLOUR = {0xE0: (b"JFIF\0", 18), 0xEE: (b"Adobe", 16)}  # what the numbers of a pixel mean
_JPEG_TOLD = _JPEG_COLOUR | {APPLICATION_1: (b"Exif\0\0", 10), 0xE2: (b"ICC_PROFILE\0", 18)}
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_TOLD = frozenset({b"sRGB", b"gAMA", b"cHRM", b"iCCP", b"eXIf"})
_WEBP_PIXELS = frozenset({b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF"})
# Sizes, layout, palette and tables; not names, dates, resolutions, other blocks of metadata.
_TIFF_PIXELS = frozenset(
    {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293}
)
_TIFF_PIXELS |= {317, 320, 322, 323, 324, 325, 332, 338, 339, 340, 341, 347, *range(512, 522)}
_TIFF_PIXELS |= {529, 530, 531, 532}


class Segment(NamedTuple):
    """The second byte of a marker, its offset, and that of the end of what it announces."""

    code: int
    start: int
    end: int


def needed_parts(content: bytes, head: Sequence[Segment], bare: bool = False) -> bytes:
    """The file without parts that Pillow might stumble over: with the colour profile and the EXIF
    block of a JPEG or PNG, or `bare`, with nothing but what makes the pixels.

    `head` is the file's `jpeg_head`. The same bytes if there is nothing to cut. Walks all chunks of
    a PNG: `excessive_parts` comes first.
    """
    if head:
        return _without(
            content, _idle_segments(content, head, _JPEG_COLOUR if bare else _JPEG_TOLD)
        )
    if content.startswith(b"\x89PNG"):
        return _without(content, _idle_chunks(content, bare))
    if bare and content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _bare_webp(content)
    if bare and content.startswith(b"GIF8"):
        return _bare_gif(content)
    if bare and content[:4] in (b"II*\0", b"MM\0*"):
        return _bare_tiff(content)
    return content


def _without(content: bytes, spans: Iterator[tuple[int, int]]) -> bytes:
    kept, end = [], 0
    for start, stop in spans:
        kept.append(content[end:start])
        end = stop
    return b"".join([*kept, content[end:]]) if end else content


def _idle_segments(
    content: bytes, head: Sequence[Segment], kept: dict[int, tuple[bytes, int]]
) -> Iterator[tuple[int, int]]:
    for code, start, end in head:
        if code in _APPLICATIONS:
            begin, fewest = kept.get(code, (b"", 0))
            if not fewest or end - start < fewest or not content.startswith(begin, start + 4):
                yield start, end


def _idle_chunks(content: bytes, bare: bool) -> Iterator[tuple[int, int]]:
    position = 8
    while position + 8 <= len(content):
        kind = content[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        if kind not in _PNG_PIXELS:
            checksum = zlib.crc32(content[position + 4 : end - 4]).to_bytes(4, "big")
            if bare or kind not in _PNG_TOLD or content[end - 4 : end] != checksum:
                yield position, end
        position = end


def _bare_webp(content: bytes) -> bytes:
    kept, position = [], 12
    while position + 8 <= len(content):
        end = position + 8 + int.from_bytes(content[position + 4 : position + 8], "little")
        end += end % 2
        if content[position : position + 4] in _WEBP_PIXELS:
            kept.append(content[position:end])
        position = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _bare_gif(content: bytes) -> bytes:
    """Before the first picture only what says which colour of it is transparent."""
    flags = int.from_bytes(content[10:11])
    start = position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    control = b""
    while content[position : position + 1] == b"!":
        end = position + 2
        while size := int.from_bytes(content[end : end + 1]):
            end += 1 + size
        if content[position + 1 : position + 3] == b"\xf9\4":
            control = content[position : end + 1]
        position = end + 1
    return content[:start] + control + content[position:]


def _bare_tiff(content: bytes) -> bytes:
    """Of the first picture; its list of entries becomes shorter, and everything stays in place."""
    order = "little" if content.startswith(b"II") else "big"

    def number(start: int, size: int) -> int:
        return int.from_bytes(content[start : start + size], order)  # type: ignore[arg-type]

    start = number(4, 4)
    end = start + 2 + 12 * number(start, 2)
    entries = [content[at : at + 12] for at in range(start + 2, min(end, len(content)), 12)]
    kept = [e for e in entries if int.from_bytes(e[:2], order) in _TIFF_PIXELS]  # type: ignore
    listed = len(kept).to_bytes(2, order) + b"".join(kept)  # type: ignore[arg-type]
    return content[:start] + listed.ljust(end + 4 - start, b"\0") + content[end + 4 :]


def jpeg_segments(content: bytes) -> Iterator[Segment]:
    """The segments of the first picture, as Pillow and libjpeg find them: to the first end of an
    image after a scan, for a phone may have appended a film; or to the end of the file."""
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


def jpeg_head(content: bytes, most: int) -> list[Segment]:
    """The segments of a JPEG up to its first scan, at most so many; none of another file."""
    head: list[Segment] = []
    if content.startswith(b"\xff\xd8\xff"):
        for segment in islice(jpeg_segments(content), most):
            head.append(segment)
            if segment.code == START_OF_SCAN:
                break
    return head
