"""Images put into the index and taken out over HTTP, by those who have the token."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi import Request as Http
from pydantic import BaseModel

from indexer.build.edit import EditReport, add_images, remove_images
from retrieval.commands.add import stated_labels
from service.live import Live, Version
from service.problems import Refusal
from training.errors import UsageError
from training.files import write_file
from training.images.read import decode_rgb

FOLDER = "added"
"""In the gallery's folder: where files that were sent lie, by their SHA-256."""


class Labels(BaseModel):
    """What is known of an image that is sent."""

    labels: list[str] = []


class Edits:
    """One edit at a time, each followed by the new version."""

    def __init__(self, live: Live, token: str) -> None:
        self._live, self._token = live, token.encode()
        self._pool = ThreadPoolExecutor(1, "edits")

    def check(self, http: Http) -> None:
        """Raise a `Refusal` unless the request bears the token."""
        kind, _, given = http.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self._token)
        if kind.lower() != "bearer" or not right:
            why = "images are changed with the token alone: Authorization: Bearer ..."
            raise Refusal(401, why, {"WWW-Authenticate": "Bearer"})

    async def add(self, upload: bytes | None, labels: list[str]) -> EditReport:
        """Put a picture into the gallery's folder, and into the index; raises as `add_images`."""
        if upload is None:
            raise UsageError("send the picture as the file `upload` of a form")
        version, content = self._live.current, upload

        def work() -> EditReport:
            states = stated_labels(version.engine.schema, labels) if labels else None
            picture = decode_rgb(content, "the picture")  # before it is written anywhere
            del picture
            path = f"{FOLDER}/{hashlib.sha256(content).hexdigest()}"
            write_file(version.held.root / path, content)
            return add_images(Path(self._live.index), [path], states)

        return await self._do(work)

    async def remove(self, version: Version, row: int) -> EditReport:
        """Take an image out of the index; its file stays. Raises as `remove_images`."""
        (path,) = version.known(row).paths
        return await self._do(lambda: remove_images(Path(self._live.index), [path]))

    def close(self) -> None:
        """Let the edit that goes on end."""
        self._pool.shutdown(cancel_futures=True)

    async def _do(self, work: Callable[[], EditReport]) -> EditReport:
        # Shielded: a client that goes must not leave an edit of which nobody knows the end.
        future = asyncio.wrap_future(self._pool.submit(work))
        report = await asyncio.shield(future)
        await self._live.reload()
        return report
