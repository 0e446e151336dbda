"""The version of an index that answers, and the next one that takes its place while it does."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.hold.held import Records
from retrieval.engine import Engine
from retrieval.picture import Picture
from retrieval.query_vector import KEEP
from retrieval.sheet import map_offset
from service.problems import Refusal
from service.telemetry import IMAGES, RELOADS, log, tell
from training.descriptor import Floats
from training.errors import DataError, RetrieveError
from training.files import leaves_root

POLL_SECONDS = 1.0
_AGAIN_SECONDS = 10.0  # until a version that could not be opened is tried again


class Version:
    """One version of an index, open for questions. Threads may share it."""

    def __init__(self, index: str | Path, device: str = "cpu", root: str | None = None) -> None:
        """Open it; raises as `Engine.open`."""
        self.engine = Engine.open(index, device, root=root)
        self.held = self.engine.held
        self.content = self.held.content[:16]
        """Names the images and their order, and the model: with a row it is the name of an image
        that never means another one."""

    def row(self, content: str, row: int) -> int:
        """The row of an image by its name; `Refusal` if this version does not have it."""
        if content != self.content:
            raise Refusal(410, "the index has changed since; ask again for its images")
        return row

    def known(self, row: int) -> Records:
        """What is known of an image; `Refusal` if it is not there."""
        try:
            return self.held.records(np.array([row]))
        except IndexError as error:
            raise Refusal(404, f"there is no image {row}; there are {len(self.held):,}") from error

    def picture(self, row: int) -> Picture:
        """An image of the gallery as a picture to ask with, from its descriptor."""
        known, layout = self.known(row), self.held.layout
        chances, nuance = layout.chances(known.descriptors), layout.nuance_of(known.descriptors)
        return Picture(chances[0], nuance[0], known.digests.tobytes())

    def path(self, row: int) -> Path:
        """Where an image lies; DataError if that is outside of the gallery's folder."""
        (name,) = self.known(row).paths
        if leaves_root(name):
            raise DataError(f"image {row} lies outside of the gallery's folder")
        return self.held.root / name

    def attention(self, pixels: NDArray[np.uint8], condition: NDArray[np.int8]) -> Floats:
        """Where the model looks in an image uint8 [3, S, S] under a condition [K]: [H, W]."""
        found: Floats = self.engine.model.attention(pixels, [condition])[0]
        return found

    @cached_property
    def offset(self) -> float:
        """Of attention maps, as of `map_offset`."""
        return map_offset(self.held)

    @cached_property
    def schema(self) -> dict[str, Any]:
        """What can be asked for, with the number of images that are known to have each value."""
        held, schema = self.held, self.engine.schema
        labelled, attributes = held.labelled().tolist(), []
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
            "dataset": held.dataset,
            "images": len(held),
            "items": held.has_items,
            "keep": KEEP,
            "attributes": attributes,
            "columns": [{"name": name} | column.told() for name, column in held.columns.items()],
        }


class Live:
    """The current version of an index; `watch` replaces it when another is there.

    What has taken `current` keeps it until it is done with it.
    """

    def __init__(self, index: str | Path, device: str = "cpu", root: str | None = None) -> None:
        self.index, self._opened_with = index, (device, root)
        self.current = Version(index, device, root)
        self._seen = self.current.held.seen
        IMAGES.set(len(self.current.held))

    async def watch(self, every: float = POLL_SECONDS) -> None:
        """Look for another version, for ever. One that cannot be opened is told of in the log, and
        the old one goes on."""
        while True:
            await asyncio.sleep(every)
            try:
                seen = await asyncio.to_thread(self.current.held.look)
            except RetrieveError as error:  # of a database that does not answer
                log.error("reload failed", extra={"fields": {"detail": str(error)}})
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            if seen != self._seen and not await self.reload():
                await asyncio.sleep(_AGAIN_SECONDS)

    async def reload(self) -> bool:
        """Open the version that is there now; whether it could be."""
        try:
            found = await asyncio.to_thread(Version, self.index, *self._opened_with)
        except (RetrieveError, MemoryError, OSError) as error:
            log.error("reload failed", extra={"fields": {"detail": str(error)}})
            RELOADS.labels("failed").inc()
            return False
        self.current, self._seen = found, found.held.seen
        IMAGES.set(len(found.held))
        RELOADS.labels("done").inc()
        tell("reloaded", content=found.content, images=len(found.held))
        await asyncio.to_thread(_tidy)
        return True


def _tidy() -> None:
    """Give back what the version before held: a model's worth of memory."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
