"""A real server over an index, as `retrieve serve` starts it: to be measured, and tested."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx


@dataclass
class Server:
    """A process that listens; `log` is its standard error."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    started: float  # seconds until it was ready

    def client(self, **options: Any) -> httpx.Client:
        """One that asks it."""
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, **options)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        found = httpx.URL(self.url)
        return found.host, found.port or 0

    def lines(self) -> list[dict[str, Any]]:
        """What it logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line[0] == "{"]

    def files(self) -> list[str]:
        """What its descriptors are open on."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        found = []
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(folder / name))
            except FileNotFoundError:  # of the listing itself
                continue
        return found

    def status(self, name: str) -> int:
        """A figure of /proc/PID/status, such as `VmRSS` in kB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition(f"\n{name}:")[2].split()[0])

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serve(index: Path, folder: Path, *options: object) -> Iterator[Server]:
    """Serve an index until the block ends; `folder` holds the log and is the server's TMPDIR."""
    folder.mkdir(parents=True, exist_ok=True)
    log, temporary = folder / "log", folder / "tmp"
    temporary.mkdir()
    words = ["-m", "retrieval.cli", "serve", str(index), "--port", "0", *map(str, options)]
    with open(log, "wb") as handle:
        process = subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.DEVNULL,
            stderr=handle,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    start = time.monotonic()
    try:
        yield Server(process, _url(process, log), log, time.monotonic() - start)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, once it is ready."""
    late = time.monotonic() + 60
    while time.monotonic() < late and process.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("serving at "):
                url = line.split()[2].rstrip(";")
                try:
                    if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                        return url
                except httpx.TransportError:
                    break
        time.sleep(0.05)
    raise AssertionError(log.read_text())
