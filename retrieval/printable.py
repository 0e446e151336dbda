"""Text of unknown origin, made fit to be shown: file names and labels may hold anything."""

from __future__ import annotations

from rich.markup import escape


def printable(text: str) -> str:
    r"""Escape control characters and surrogates: `two\nlines`, never a terminal's commands.

    Args:
        text: a file name or label; bytes of a name that are not UTF-8 are surrogates in it.

    Returns:
        One line that any UTF-8 stream takes; what is printable stays as it is.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(text: str) -> str:
    """The text as rich shows it unchanged: printable, and nothing in it taken for markup."""
    return escape(printable(text))
