"""An operation and its floor, timed in turns, so that a busy machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Paired:
    """Seconds of an operation and of its floor, a pair a repeat."""

    seconds: tuple[float, ...]
    floors: tuple[float, ...]

    @property
    def value(self) -> float:
        """Median seconds of the operation."""
        return median(self.seconds)

    @property
    def floor(self) -> float:
        """Median seconds of the floor."""
        return median(self.floors)

    @property
    def ratio(self) -> float:
        """Median of the pairs' ratios."""
        return median(s / f for s, f in zip(self.seconds, self.floors, strict=True))


def paired(
    operation: Callable[[int], object],
    floor: Callable[[int], object],
    repeats: int,
    settled: bool = False,
) -> Paired:
    """Time an operation and its floor in turns, after one untimed call of each.

    Args:
        operation: is told the number of the repeat, 0..repeats - 1.
        floor: likewise.
        repeats: at least 1.
        settled: whether each call follows an untimed one of its own kind. For milliseconds: neither
            then finds the caches full of what the other read, nor its threads waiting busily.
    """
    operation(0)
    floor(0)
    seconds: list[float] = []
    floors: list[float] = []
    for number in range(repeats):
        for call, out in ((operation, seconds), (floor, floors)):
            if settled:
                call(number)
            started = time.perf_counter()
            call(number)
            out.append(time.perf_counter() - started)
    return Paired(tuple(seconds), tuple(floors))


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
