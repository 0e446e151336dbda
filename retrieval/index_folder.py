"""The index that is meant when none is named."""

from __future__ import annotations

from pathlib import Path

from training.errors import UsageError


def only_index(option: str) -> Path:
    """The one index in indexes/.

    Args:
        option: what names another, for the message.

    Raises:
        UsageError: if there is none, or more than one.
    """
    # By the copy too: a lost manifest does not hide an index.
    found = sorted({path.parent for path in Path("indexes").glob("*/manifest*.json")})
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(map(str, found))
        raise UsageError(f"{len(found)} indexes in indexes/; choose with {option}: {choices}")
    raise UsageError(
        "no index in indexes/; build one with `retrieve build-index --dataset D`, "
        f"or name one with {option}"
    )
