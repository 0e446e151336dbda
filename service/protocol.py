"""HTTP by uvicorn and httptools, which wait for a head for ever: here until a deadline."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_SECONDS = 5.0
HEAD_BYTES = 32 * 2**10
STALL_SECONDS = 10.0
CONNECTIONS = 2000


class PatientProtocol(HttpToolsProtocol):
    """Ends a connection whose head is slow (`HEAD_SECONDS`) or large (`HEAD_BYTES`), one that does
    not take its answer (`STALL_SECONDS`), and those beyond `CONNECTIONS`."""

    _head: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None
    _taken = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        else:
            self._await_head(told=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        self._taken += len(data)
        super().data_received(data)
        if self._head is None:
            self._taken = 0
        elif self._taken > HEAD_BYTES:
            self._end(431)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._cancel()
        self._await_head(told=True)

    def on_headers_complete(self) -> None:
        """A head is whole."""
        self._cancel()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client takes nothing for now."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It goes on taking."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()

    def _await_head(self, told: bool) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self._end, 408 if told else 0)

    def _cancel(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _end(self, status: int) -> None:
        """Close, with a status where one was asked for and nothing else is being answered."""
        self._cancel()
        answering: Any = self.cycle
        if status and (answering is None or answering.response_complete):
            self.transport.write(
                STATUS_LINE[status] + b"connection: close\r\ncontent-length: 0\r\n\r\n"
            )
        self.transport.close()
