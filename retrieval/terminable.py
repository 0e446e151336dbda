"""Ending a command that writes to an index in good order when it is told to."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click


@contextmanager
def terminable(then: str) -> Iterator[None]:
    """Turn SIGTERM into an exception, so that temporary files go and workers end on the way out.

    Args:
        then: what a person is told: how things stand, or what to do next.
    """

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        click.echo(f"retrieve: terminated; {then}", err=True)
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
