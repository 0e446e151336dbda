"""How an index is searched: every descriptor, or the inverted lists that are nearest to a query."""

from __future__ import annotations

import math
import re

from training.errors import UsageError

DEFAULT_RECALL = 0.98
"""Recall@10 against the search of every descriptor that inverted lists have to reach."""

WORST_RECALL = 0.95
"""The same for the worst of the filters that it is measured under."""

LISTS_FROM = 1_000_000
"""Images from which there are inverted lists: below, two cores read every descriptor in less time
than the eye notices (of 256 bytes, 253,983 in 12 ms and 1,000,000 in 31 ms)."""

MOST_LISTS = 4096
"""Inverted lists, at most: the time to assign rows to more of them is felt in a build."""


def choose_factory(rows: int, recall: float, asked: str | None = None) -> str:
    """`flat`, or `IVFn` for n inverted lists.

    Args:
        rows: M.
        recall: recall@10 that is wanted, above 0 and at most 1; 1 reads every descriptor.
        asked: what the user wants instead.

    Raises:
        UsageError: another word, more lists than rows, or a recall out of its range.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall must be above 0 and at most 1, not {recall}")
    if asked is None:
        power = 1 << round(math.log2(4 * math.sqrt(rows)))
        return "flat" if rows < LISTS_FROM or recall == 1 else f"IVF{min(power, MOST_LISTS)}"
    found = re.fullmatch(r"(flat)|IVF([1-9][0-9]{0,6})", asked, re.IGNORECASE)
    if found is None:
        raise UsageError(
            f"unknown index factory {asked!r}; give flat, or IVF and the number of inverted lists, "
            "such as IVF1024"
        )
    if found[1]:
        return "flat"
    if int(found[2]) > rows:
        raise UsageError(
            f"index factory {asked!r} has more lists than the {rows:,} images; give at most "
            f"IVF{rows}, or flat"
        )
    return f"IVF{found[2]}"


def lists_of(factory: str) -> int:
    """Inverted lists of a factory string that `choose_factory` gave; 0 for `flat`."""
    return 0 if factory == "flat" else int(factory.removeprefix("IVF"))
