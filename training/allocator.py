"""Keep freed memory in the process: batches ask for the same large blocks again and again.

glibc gives blocks above 128 KB to 32 MB back to the system and gets them anew, zeroed page by
page. On CPUs that costs torch up to a third of its time.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc not to return memory for the rest of this process, for long batch jobs.

    Returns:
        Whether that took effect; elsewhere than on Linux with glibc nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # another C library
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))
