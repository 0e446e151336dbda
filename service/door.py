"""The door, pure ASGI: what every request passes before and after its route.

It gives a request its id, takes its body into memory within limits of size and time (nothing of it
is ever written to a disk), ends work whose client has gone, turns errors into problem+json, adds
the headers that keep browsers strict, counts and logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from service.problems import Refusal, busy, problem
from service.telemetry import REQUESTS, SECONDS, log

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

BODY_SECONDS = 5.0
"""Time for a body, and a second more for each `BODY_RATE` bytes of it."""

BODY_RATE = 64 * 2**10
BODIES = 256 * 2**20
"""Bytes of bodies that are in memory at a time."""

ANSWER_SECONDS = 30.0
_LINGER = 0.5  # seconds in which what a refused client still sends is read and dropped
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Door:
    """An app behind a door: bodies of at most `most` bytes, no more than `admit` lets through (it
    raises a `Refusal`; asked for requests with a body only)."""

    def __init__(self, app: App, most: int, admit: Callable[[], None]) -> None:
        self._app, self._most, self._admit = app, most, admit
        self._held = 0  # bytes of bodies in memory

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        known = _ID.fullmatch(given)
        name = given.decode() if known else secrets.token_hex(8)
        scope["state"] = {**scope.get("state", {}), "id": name}
        visit = _Visit(scope, send, name)
        try:
            async with asyncio.timeout(None) as deadline:
                body = await self._body(scope, receive)
                try:
                    visit.taken, visit.begun = len(body), time.monotonic()
                    deadline.reschedule(asyncio.get_running_loop().time() + ANSWER_SECONDS)
                    await self._answer(scope, body, receive, visit.send)
                finally:
                    self._held -= len(body)
        except _Gone:
            visit.status = 499
        except Refusal as refusal:
            await visit.refuse(refusal, receive)
        except TimeoutError:
            await visit.refuse(Refusal(504, f"not answered in {ANSWER_SECONDS:g} s"), receive)
        except Exception as error:
            log.exception("error", extra={"fields": {"id": name}})
            await visit.refuse(error, receive)
        finally:
            visit.tell()

    async def _body(self, scope: Message, receive: Receive) -> bytes:
        """The whole body; raises a `Refusal` for one that is too large, too slow or untimely."""
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        chunked = b"transfer-encoding" in headers
        if not chunked and announced == b"0":
            return b""
        told = int(announced) if announced.isdigit() else 0
        if told > self._most:
            raise self._too_large()
        self._admit()
        parts: list[bytes] = []
        taken, begun = 0, time.monotonic()
        try:
            while True:
                left = begun + BODY_SECONDS + taken / BODY_RATE - time.monotonic()
                try:
                    message = await asyncio.wait_for(receive(), max(left, 0))
                except TimeoutError:
                    raise Refusal(408, "the body came too slowly") from None
                if message["type"] == "http.disconnect":
                    raise _Gone
                part = message.get("body", b"")
                taken += len(part)
                self._held += len(part)
                if taken > self._most:
                    raise self._too_large()
                if self._held > BODIES:
                    raise busy(1)
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
        except BaseException:
            self._held -= taken
            raise

    def _too_large(self) -> Refusal:
        return Refusal(413, f"a body has at most {self._most:,} bytes; send a smaller picture")

    async def _answer(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Let the app answer, as long as the client is there."""
        given = False

        async def whole() -> Message:
            nonlocal given
            if given:  # nobody waits for it but to learn that the client has gone
                await asyncio.Event().wait()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        answer = asyncio.ensure_future(self._app(scope, whole, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _Gone
            answer.result()
        finally:
            for task in (gone, answer):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await answer


class _Gone(Exception):
    """The client has closed the connection."""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Visit:
    """One request on its way out."""

    def __init__(self, scope: Message, send: Send, name: str) -> None:
        self._scope, self._send, self._name = scope, send, name
        self._came = self.begun = time.monotonic()
        self.status = self.taken = self.given = 0

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            there = {name for name, _ in message["headers"]}
            own = {**_HEADERS, "x-request-id": self._name}
            message["headers"] = [
                *message["headers"],
                *((k.encode(), v.encode()) for k, v in own.items() if k.encode() not in there),
            ]
        else:
            self.given += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, error: BaseException, receive: Receive) -> None:
        """Answer with a problem, unless an answer has begun, and end the connection: what the
        client still sends is dropped for a moment, or it would not read the answer."""
        if self.status:
            return
        response = problem(error)
        headers = [*response.raw_headers, (b"connection", b"close")]
        with contextlib.suppress(Exception):
            await self.send(
                {"type": "http.response.start", "status": response.status_code, "headers": headers}
            )
            await self.send(
                {"type": "http.response.body", "body": response.body, "more_body": True}
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER):
                    while True:
                        message = await receive()
                        if message["type"] == "http.disconnect" or not message.get("more_body"):
                            break
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def tell(self) -> None:
        """Count and log."""
        now, scope = time.monotonic(), self._scope
        route = getattr(scope.get("route"), "path", "other")
        REQUESTS.labels(route, scope["method"], str(self.status)).inc()
        SECONDS.labels(route).observe(now - self.begun)
        fields = {
            "id": self._name,
            "method": scope["method"],
            "route": route,
            "status": self.status,
            "ms": round(1000 * (now - self._came), 1),
            "bytes_in": self.taken,
            "bytes_out": self.given,
        }
        log.info("request", extra={"fields": fields})
