"""Errors as RFC 9457 has them, problem+json, with the message that the command line prints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from retrieval.console import printable
from training.errors import (
    CorruptStoreError,
    DataError,
    LockedError,
    ResourceError,
    RetrieveError,
    UsageError,
)

_STATUS: Mapping[type[RetrieveError], int] = {
    UsageError: 400,
    DataError: 422,
    LockedError: 409,
    ResourceError: 503,
    CorruptStoreError: 500,
}


class Refusal(Exception):
    """A request that is not answered: status, why and what to do, further headers."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.headers = status, dict(headers or {})


def busy(seconds: float) -> Refusal:
    """More is asked than can be done; in so many seconds it will be otherwise."""
    after = max(1, math.ceil(seconds))
    return Refusal(503, f"too busy; try again in {after} s", {"Retry-After": str(after)})


def problem(error: BaseException) -> Response:
    """What is answered for an error; of one that nobody expects only that it is a bug."""
    headers: Mapping[str, str] = {}
    if isinstance(error, Refusal):
        status, detail, headers = error.status, str(error), error.headers
    elif isinstance(error, RetrieveError):
        known = (kind for kind in type(error).__mro__ if kind in _STATUS)
        status, detail = _STATUS[next(known)], str(error)
    elif isinstance(error, MemoryError):
        status, detail = 503, "out of memory; try again, or a smaller picture"
    else:
        status, detail = 500, "internal error: this is a bug; the server's log has its traceback"
    if status == 503:
        headers = {"Retry-After": "1", **headers}
    told = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": "\n".join(map(printable, detail.split("\n"))),
    }
    return Response(json.dumps(told), status, headers, "application/problem+json")
