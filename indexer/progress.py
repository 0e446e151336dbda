"""How a build tells what it is doing; the command line shows it as a bar."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener of a build."""

    def start(self, stage: str, total: int) -> None:
        """A stage with `total` images begins."""

    def advance(self, count: int) -> None:
        """`count` more images of the stage are done."""

    def say(self, message: str) -> None:
        """Something that a person should know."""


class Silent:
    """A listener that ignores everything."""

    def start(self, stage: str, total: int) -> None:
        """Ignore."""

    def advance(self, count: int) -> None:
        """Ignore."""

    def say(self, message: str) -> None:
        """Ignore."""
