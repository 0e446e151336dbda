"""What came of injecting one fault many times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A row of the table.

    Args:
        fault: what was injected, with its number in docs/reliability.md.
        trials: how often.
        survived: after how many of them all was as promised.
        failures: the others in words.
    """

    fault: str
    trials: int
    survived: int
    failures: tuple[str, ...] = ()


def outcome(fault: str, troubles: Iterable[str | None]) -> Outcome:
    """Count trials, each given by what went wrong; None or empty: nothing."""
    found = list(troubles)
    failures = tuple(trouble for trouble in found if trouble)
    return Outcome(fault, len(found), len(found) - len(failures), failures)
