"""stub, replaced by w24-threads"""

import os


def threads() -> int:
    """Cores."""
    return len(os.sched_getaffinity(0))
