"""What Pillow warns of while one picture is read, so that the reader can refuse it.

Python keeps its warning filters for the whole process, and `warnings.catch_warnings` restores them
wrongly if two threads overlap. So one picture at a time is read in a process: a lock holds the
others back (which also bounds the memory of decoding in threads; batches are decoded in processes
of their own). Only warnings that Pillow raises in the reading thread are collected; those of other
threads and of other libraries go where they went before.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TextIO

from PIL import Image

_READING = threading.Lock()


@dataclass(frozen=True)
class PillowWarning:
    """One warning.

    Args:
        text: what it says.
        module: name of Pillow's module that warned, such as `JpegImagePlugin`.
    """

    text: str
    module: str


@contextmanager
def pillow_warnings() -> Iterator[list[PillowWarning]]:
    """Collect Pillow's warnings of this thread; one thread at a time is let in.

    Yields:
        A list that grows with every warning; that of the pixel limit is left out, since the reader
        has its own.
    """
    reader = threading.get_ident()
    found: list[PillowWarning] = []
    with _READING, warnings.catch_warnings():
        # "always": by default a warning is shown once a process, so the second picture would pass.
        warnings.filterwarnings("always", module=r"PIL\.")
        # Of a file that somebody else left open and that is collected just now, not of the picture.
        warnings.filterwarnings("ignore", category=ResourceWarning)
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            path = PurePath(filename)
            if threading.get_ident() == reader and path.parent.name == "PIL":
                if not issubclass(category, Image.DecompressionBombWarning):
                    found.append(PillowWarning(str(message), path.stem))
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield found
