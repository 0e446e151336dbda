"""Before a build: whether there is room for it."""

from __future__ import annotations

import shutil
from pathlib import Path

from indexer.index_choice import LISTS_FROM
from indexer.manifest import Manifest
from training.errors import ResourceError
from training.schema import Schema

_PATH = 64  # bytes of a path, about
_SPARE = 64 << 20  # bytes left for manifests, folders and other processes


def check_room(folder: Path, draft: Manifest, images: int, encode: int) -> str:
    """What a build writes into the index `folder`, and what is free there, for a person.

    Args:
        folder: it is there; the version that is replaced lies beside the new one.
        draft: gives K and the layout of descriptors.
        images: M, in the index to be.
        encode: of them to be encoded.

    Raises:
        ResourceError: there is not that much; the message names the figures.
    """
    width = draft.identity.layout.width
    stored = width + 32 + 4 + _PATH  # of an image
    gallery = 8 + Schema.from_json(draft.schema).size + 1 + 8 + _PATH
    lists = width + 8 if images >= LISTS_FROM else 0
    needed = encode * stored + images * (gallery + lists)
    free = shutil.disk_usage(folder).free
    what = f"{images:,} images, {encode:,} to be encoded"
    room = f"{-(-needed // 10**6):,} MB in {folder}, where {free // 10**6:,} MB are free"
    if needed + _SPARE > free:
        raise ResourceError(f"{what}, need {room}; free some space, or give another --out")
    return f"{what}, need {room}"
