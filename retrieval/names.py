"""Names on the command line: comma-separated, in options that may be given more than once."""

from __future__ import annotations

from training.errors import UsageError


def split_names(option: str, given: tuple[str, ...]) -> list[str]:
    """Names of a comma-separated option that may be given more than once.

    Raises:
        UsageError: if one of them is empty.
    """
    names = [part.strip() for text in given for part in text.split(",")]
    if not all(names):
        raise UsageError(
            f"{option} {','.join(given)!r} holds an empty name; separate names by single commas"
        )
    return names
