"""One thread a test process (they run side by side), and helper modules importable by name."""

import os
import sys
from pathlib import Path

# Before torch is imported, here or in a subprocess. More threads would also make sums differ in
# their last bits from run to run, and builds that are compared here would differ with them.
os.environ["OMP_NUM_THREADS"] = "1"

sys.path[:0] = [
    str(Path(__file__).parent / room)
    for room in (
        "training",
        "training/models",
        "indexer",
        "indexer/build",
        "indexer/encode",
        "retrieval",
        "retrieval/evaluation",
        "endurance",
    )
]
