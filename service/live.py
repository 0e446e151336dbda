"""The version of an index that answers, and the next one that takes its place while it does."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.store.gallery import Column
from indexer.store.manifest import MANIFEST_NAME
from retrieval.engine import Engine
from retrieval.picture import Picture, stored_pictures
from retrieval.query_vector import KEEP
from retrieval.sheet import map_offset
from service.problems import Refusal
from service.telemetry import IMAGES, RELOADS, log, tell
from training.descriptor import Floats
from training.errors import DataError, RetrieveError
from training.files import leaves_root
from training.images.read import version_of

POLL_SECONDS = 1.0
_AGAIN_SECONDS = 10.0  # until a version that could not be opened is tried again
_MOST_TEXTS = 60  # different cells of a column that are listed to be chosen from


class Version:
    """One version of an index, open for questions. Threads may share it."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Open it; raises as `Engine.open`."""
        self.engine = Engine.open(folder, device)
        self.store = self.engine.store
        self.content = self.store.manifest.content[:16]
        """Names the images and their order, and the model: with a row it is the name of an image
        that never means another one."""
        self.model = self.store.manifest.identity.model

    def row(self, content: str, row: int) -> int:
        """The row of an image by its name; `Refusal` if this version does not have it."""
        if content != self.content:
            raise Refusal(410, "the index has changed since; ask again for its images")
        if not 0 <= row < len(self.store):
            raise Refusal(404, f"there is no image {row}; there are {len(self.store):,}")
        return row

    def row_of(self, digest: bytes) -> int | None:
        """The first image whose file has this SHA-256."""
        start = 0
        for shard in self.store.shards:
            digests = shard.rows.digests
            near = np.flatnonzero(digests[:, 0] == digest[0])
            same = near[(digests[near] == np.frombuffer(digest, np.uint8)).all(axis=1)]
            if len(same):
                return start + int(same[0])
            start += len(digests)
        return None

    def digest(self, row: int) -> bytes:
        """SHA-256 of an image's file."""
        return bytes(self.store.digests_of(np.array([row]))[0])

    def picture(self, row: int) -> Picture:
        """An image of the gallery as a picture to ask with, from its descriptor."""
        (stored,) = stored_pictures(self.store, np.array([row]))
        return replace(stored, digest=self.digest(row))

    def path(self, row: int) -> Path:
        """Where an image lies; DataError if that is outside of the gallery's folder."""
        name = self.store.paths[row]
        if leaves_root(name):
            raise DataError(f"image {row} lies outside of the gallery's folder")
        return self.store.root / name

    def attention(self, pixels: NDArray[np.uint8], condition: NDArray[np.int8]) -> Floats:
        """Where the model looks in an image uint8 [3, S, S] under a condition [K]: [H, W]."""
        found: Floats = self.engine.model.attention(pixels, [condition])[0]
        return found

    @cached_property
    def offset(self) -> float:
        """Of attention maps, as of `map_offset`."""
        return map_offset(self.store)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """What can be asked for, with the number of images that are known to have each value."""
        store, schema = self.store, self.engine.schema
        labelled, attributes = store.labelled().tolist(), []
        for number, attribute in enumerate(schema.attributes):
            own = schema.slice_of(number)
            names = schema.value_names[own]
            values = [
                {"name": name, "value": value, "images": count}
                for name, value, count in zip(names, attribute.values, labelled[own], strict=True)
            ]
            attributes.append({"name": attribute.name, "multi": attribute.multi, "values": values})
        return {
            "content": self.content,
            "dataset": store.manifest.dataset,
            "images": len(store),
            "items": store.items() is not None,
            "keep": KEEP,
            "attributes": attributes,
            "columns": [_told(column) for column in store.payload.values()],
        }


def _told(column: Column) -> dict[str, Any]:
    """What a column holds: the range of its numbers, or its texts where they are few."""
    if column.numeric:
        numbers = column.numbers()
        least, most = float(np.nanmin(numbers)), float(np.nanmax(numbers))
        return {"name": column.name, "numeric": True, "least": least, "most": most, "texts": []}
    found: Counter[str] = Counter()
    for row in range(len(column)):
        found[column.text(row)] += 1
        if len(found) > _MOST_TEXTS + 1:
            found.clear()
            break
    texts = [{"text": text, "images": n} for text, n in found.most_common() if text]
    return {"name": column.name, "numeric": False, "least": None, "most": None, "texts": texts}


class Live:
    """The current version of the index in a folder; `watch` replaces it when another is there.

    What has taken `current` keeps it until it is done with it.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder, self._device = folder, device
        self._seen = version_of(folder / MANIFEST_NAME)
        self.current = Version(folder, device)
        IMAGES.set(len(self.current.store))

    async def watch(self, every: float = POLL_SECONDS) -> None:
        """Look for another version, for ever. One that cannot be opened is told of in the log, and
        the old one goes on."""
        while True:
            await asyncio.sleep(every)
            if version_of(self.folder / MANIFEST_NAME) != self._seen and not await self.reload():
                await asyncio.sleep(_AGAIN_SECONDS)

    async def reload(self) -> bool:
        """Open the version that is in the folder now; whether it could be."""
        seen = version_of(self.folder / MANIFEST_NAME)
        try:
            found = await asyncio.to_thread(Version, self.folder, self._device)
        except (RetrieveError, MemoryError, OSError) as error:
            log.error("reload failed", extra={"fields": {"detail": str(error)}})
            RELOADS.labels("failed").inc()
            return False
        self.current, self._seen = found, seen
        IMAGES.set(len(found.store))
        RELOADS.labels("done").inc()
        tell("reloaded", content=found.content, images=len(found.store))
        await asyncio.to_thread(_tidy)
        return True


def _tidy() -> None:
    """Give back what the version before held: a model's worth of memory."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
