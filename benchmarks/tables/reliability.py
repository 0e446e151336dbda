"""Reliability diagrams, SVG: how often predictions of a chance are right, a panel an attribute."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from retrieval.evaluation.tagging import BINS, Bin

SIDE, GAP, TOP, ACROSS = 150, 52, 30, 4
"""Of a panel, between panels, above them, in pixels; panels a row."""

_MOST = 7.0  # radius of all predictions in one bin
_INK, _PALE, _MARK = "#333333", "#bbbbbb", "#2563a8"


def pooled(seeds: Sequence[Sequence[Sequence[float]]]) -> tuple[Bin, ...]:
    """The bins of several runs as one, by the range that their chances are in; each is (mean
    chance, share right, predictions) as of `reliability`."""
    sums = [[0.0, 0.0, 0] for _ in range(BINS)]
    for chance, right, count in (one for own in seeds for one in own):
        into = sums[min(int(chance * BINS), BINS - 1)]
        into[0] += chance * count
        into[1] += right * count
        into[2] += count
    return tuple(Bin(chance / n, right / n, int(n)) for chance, right, n in sums if n)


def has_bins(data: Any) -> bool:
    """Whether a result of `bench tagging` has what a diagram is drawn of."""
    return all("reliability" in own for row in data["rows"] for own in _attributes(row).values())


def diagram(data: Any) -> str:
    """The diagram of a result of `bench tagging`, runs pooled: SVG, dots as large as their share of
    the predictions; on the line chances are right as often as they say."""
    names = list(_attributes(data["rows"][0]))
    rows = math.ceil(len(names) / ACROSS)
    width = min(len(names), ACROSS) * (SIDE + GAP) + GAP // 2
    height = rows * (SIDE + GAP + TOP) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11" fill="{_INK}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for place, name in enumerate(names):
        left = GAP + place % ACROSS * (SIDE + GAP)
        top = TOP + place // ACROSS * (SIDE + GAP + TOP)
        own = [_attributes(row)[name] for row in data["rows"]]
        error = sum(one["calibration_error"] for one in own) / len(own)
        parts.append(f'<g transform="translate({left} {top})">')
        parts += _panel(f"{name}, ECE {error:.3f}", pooled([one["reliability"] for one in own]))
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _attributes(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = row["tags"]["attributes"]
    return found


def _panel(title: str, bins: Sequence[Bin]) -> Iterator[str]:
    yield f'<text x="0" y="-8">{escape(title)}</text>'
    yield f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="{_PALE}"/>'
    yield f'<path d="M0 {SIDE}L{SIDE} 0" stroke="{_PALE}" stroke-dasharray="4 3"/>'
    for share in (0, 0.5, 1):
        x, y = share * SIDE, (1 - share) * SIDE
        yield f'<text x="{x:g}" y="{SIDE + 14}" text-anchor="middle">{share:g}</text>'
        yield f'<text x="-5" y="{y + 4:g}" text-anchor="end">{share:g}</text>'
    middle = SIDE / 2
    yield f'<text x="{middle:g}" y="{SIDE + 27}" text-anchor="middle">chance</text>'
    yield (
        f'<text transform="translate(-30 {middle:g}) rotate(-90)" text-anchor="middle">right</text>'
    )
    places = [(one.chance * SIDE, (1 - one.right) * SIDE) for one in bins]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    yield f'<path d="M{line}" fill="none" stroke="{_MARK}"/>'
    total = sum(one.predictions for one in bins)
    for (x, y), one in zip(places, bins, strict=True):
        radius = max(1.2, _MOST * math.sqrt(one.predictions / total))
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{_MARK}"/>'
