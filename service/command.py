"""`retrieve serve`: an index over HTTP, and a page on it."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import click

from retrieval.console import say
from retrieval.options import COUNT, DEVICE, filled
from training.errors import ResourceError, UsageError

_SHORTEST = 16  # characters of a token
_GRACE = 20  # seconds that requests have to end in when the service ends


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `retrieve serve` is told."""

    index: Annotated[str, click.argument("index")]
    host: Annotated[str, "Address to listen at; 0.0.0.0 lets others in."] = "127.0.0.1"
    port: Annotated[int, click.IntRange(0, 65535), "0: one that is free."] = 8000
    workers: Annotated[int, COUNT, "Processes that answer."] = 1
    max_upload: Annotated[int, click.IntRange(1, 1024), "MB of a picture at most."] = 20
    token_file: Annotated[
        Path | None,
        "Let those who send the token in this file add and remove images [default: nobody].",
    ] = None
    device: Annotated[str, DEVICE]
    root: Annotated[Path | None, "The gallery's folder, if it has moved."] = None


@click.command("serve")
@filled(Options)
def command(options: Options) -> int:
    """Answer queries over INDEX by HTTP, and show a page to ask with.

    \b
    retrieve serve indexes/shop
    retrieve serve postgresql://user@host/db?table=shop

    /openapi.json describes the interface. A new version of the index is taken up while the service
    runs. Whoever reaches the address may ask: put what ends TLS and knows users in front of it.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ResourceError(
            f'{error.name} is missing: pip install "m2fashion-retrieval[serve]"'
        ) from error
    token = _token(options.token_file)
    from indexer.hold.open import open_held, scheme_of

    in_database = scheme_of(options.index) is not None
    if in_database and token:
        raise UsageError(
            f"--token-file: {options.index} is a database, which is only asked; change the index "
            "that it was exported from, and export it again"
        )
    if options.workers > 1:  # else the index is opened here
        open_held(options.index)
    from service.settings import SETTINGS, Settings, shared_folder

    with shared_folder() as shared:
        settings = Settings(
            options.index if in_database else str(Path(options.index).resolve()),
            shared,
            options.workers,
            options.max_upload * 2**20,
            token,
            options.device,
            None if options.root is None else str(options.root.resolve()),
        )
        told: dict[str, Any] = {
            "host": options.host,
            "port": options.port,
            "http": "service.protocol:PatientProtocol",
            "log_config": None,
            "server_header": False,
            "ws": "none",
            "timeout_graceful_shutdown": _GRACE,
        }
        if options.workers == 1:
            _serve_here(uvicorn, settings, told)
        else:
            os.environ[SETTINGS] = json.dumps(asdict(settings))
            return _serve_in_workers(uvicorn, settings, told)
    return 0


def _serve_here(uvicorn: Any, settings: Any, told: dict[str, Any]) -> None:
    from service.live import Live

    with ThreadPoolExecutor(1) as beside:  # the index opens while the framework loads
        live = beside.submit(Live, settings.index, settings.device, settings.root)
        from service.app import make_app
        from service.telemetry import log_in_lines

        log_in_lines()
        app = make_app(settings, live.result())
    config = uvicorn.Config(app, **told)
    sockets = [_bound(config)]
    uvicorn.Server(config).run(sockets)


def _serve_in_workers(uvicorn: Any, settings: Any, told: dict[str, Any]) -> int:
    from uvicorn.supervisors import Multiprocess

    from service.telemetry import SHARED, log_in_lines

    metrics = Path(settings.shared) / "metrics"
    metrics.mkdir()
    os.environ[SHARED] = str(metrics)
    log_in_lines()
    app = "service.app:from_environment"
    config = uvicorn.Config(app, factory=True, workers=settings.workers, **told)
    sockets = [_bound(config)]

    class Supervisor(Multiprocess):
        code = 0

        def handle_int(self) -> None:
            self.code = 130
            super().handle_int()

        def handle_term(self) -> None:
            self.code = 143
            super().handle_term()

    supervisor = Supervisor(config, sockets=sockets)
    supervisor.run()
    return supervisor.code


def _bound(config: Any) -> Any:
    """A socket that listens: who comes before the service is ready waits. ResourceError if its
    address is taken."""
    import socket

    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    found = socket.socket(family)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((config.host, config.port))
        found.listen(config.backlog)
    except OSError as error:
        where = f"{config.host}:{config.port}"
        why = (error.strerror or str(error)).lower()
        raise ResourceError(f"cannot listen at {where}: {why}; give another --port") from error
    found.set_inheritable(True)
    host = f"[{config.host}]" if ":" in config.host else config.host
    say(f"serving at http://{host}:{found.getsockname()[1]}; Ctrl-C ends it")
    return found


def _token(path: Path | None) -> str:
    """The token; UsageError if it is short or cannot be read."""
    if path is None:
        return ""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {path} cannot be read: {error}") from error
    if len(token) < _SHORTEST or not token.isascii():
        raise UsageError(f"the token in {path} needs {_SHORTEST} ASCII characters or more")
    return token
