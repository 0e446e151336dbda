"""Running Python in a process of its own, to time it whole or to see its memory alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from training.errors import ResourceError


def output_of(arguments: Sequence[str]) -> str:
    """Run this Python with some arguments; what it printed.

    Raises:
        ResourceError: it failed; the message holds the end of what it said.
    """
    done = subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise ResourceError(f"a measured process failed: {done.stderr.strip()[-500:]}")
    return done.stdout
