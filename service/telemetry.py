"""What an operator sees: metrics as Prometheus reads them, and logs, one JSON object a line.

Neither holds a picture, a name of a file that was sent, or what was asked for.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client import REGISTRY as _OWN

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of the folder through which several workers add up their metrics; it has to
be set before this module is imported."""

REQUESTS = Counter(
    "retrieve_requests_total", "Requests that were answered.", ["route", "method", "status"]
)
SECONDS = Histogram(
    "retrieve_request_seconds",
    "From the last byte of a request to that of its answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WAITING = Gauge("retrieve_work", "Work that is done or waits.", multiprocess_mode="livesum")
IMAGES = Gauge("retrieve_images", "Images in the index.", multiprocess_mode="livemax")
RELOADS = Counter("retrieve_reloads_total", "New versions of the index.", ["outcome"])

log = logging.getLogger("retrieve.serve")


def metrics() -> tuple[bytes, str]:
    """The metrics of all workers, and their media type."""
    registry = _OWN
    if os.environ.get(SHARED):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told)


def log_in_lines() -> None:
    """Have this project's logs and the server's own written to standard error, in lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("retrieve.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate = [], False  # the door writes these


def tell(event: str, **fields: Any) -> None:
    """Log one event."""
    log.info(event, extra={"fields": fields})
