"""Ranges of numeric options, checked where a config is made: from a command, a file or code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.errors import UsageError


@dataclass(frozen=True)
class Range:
    """What a number may be; infinity and NaN are never.

    Args:
        least: the least number.
        most: the largest one; None: any.
        above: `least` itself is too little.
        below: `most` itself is too much.
    """

    least: float
    most: float | None = None
    above: bool = False
    below: bool = False

    def __contains__(self, number: float) -> bool:
        most = math.inf if self.most is None else self.most
        return (
            math.isfinite(number)
            and (self.least < number if self.above else self.least <= number)
            and (number < most if self.below else number <= most)
        )

    def __str__(self) -> str:
        text = f"{'above' if self.above else 'at least'} {self.least:g}"
        if self.most is None:
            return text
        return f"{text} and {'below' if self.below else 'at most'} {self.most:g}"


def check_ranges(config: object, ranges: Mapping[str, Range]) -> None:
    """Check the numbers of a config.

    Args:
        config: an object with a number by each name.
        ranges: of each name.

    Raises:
        UsageError: a number is out of its range; the message names it.
    """
    for name, allowed in ranges.items():
        number: Any = getattr(config, name)
        if number not in allowed:
            raise UsageError(f"{name} must be {allowed}, got {number!r}")
