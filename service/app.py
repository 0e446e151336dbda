"""The application: routes, the page, and what begins and ends with the server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi import Request as Http
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service import words
from service.api import QUESTIONS, Question, Service, answer, ask, bodies, draw, look, read
from service.desk import Desk
from service.door import Door
from service.edits import Edits, Labels
from service.live import Live
from service.pictures import Pictures
from service.problems import Refusal, problem
from service.settings import SETTINGS, Settings
from service.telemetry import log_in_lines, metrics, tell
from service.thumbnails import KEPT_BYTES, SIDES, Kept, thumbnail
from training.errors import RetrieveError, UsageError
from training.threads import share

_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_A_WHILE = {"Cache-Control": "private, max-age=3600"}
_KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": words.Problem, "content": {"application/problem+json": {}}}
    for status in (400, 413, 422, 503)
}

Row = Annotated[int, Query(ge=0)]
Names = Annotated[list[words.Name], Query(max_length=64)]


def from_environment() -> Door:
    """The application of a worker process."""
    settings = Settings(**json.loads(os.environ[SETTINGS]))
    log_in_lines()
    return make_app(settings, Live(settings.index, settings.device, settings.root))


def make_app(settings: Settings, live: Live) -> Door:
    """The application over an index that is open."""
    desk = Desk(share(settings.workers))
    pictures = Pictures(Path(settings.shared) / "pictures.db")
    service = Service(live, desk, pictures, Kept(KEPT_BYTES // settings.workers))
    edits = Edits(live, settings.token) if settings.token else None

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(live.watch())
        tell("ready", content=live.current.content, images=len(live.current.held))
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await asyncio.to_thread(desk.close)
        if edits is not None:
            await asyncio.to_thread(edits.close)
        pictures.close()

    app = FastAPI(
        title="Attribute-specific fashion image retrieval",
        description="A picture and named attributes in, the garments that fit out.",
        version="1",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=life,
    )
    _add_errors(app)
    _add_questions(app, service)
    _add_images(app, service)
    _add_state(app, service)
    if edits is not None:
        _add_edits(app, service, edits)
    _add_page(app)
    return Door(app, settings.most_bytes, desk.admit)


def _add_errors(app: FastAPI) -> None:
    async def told(_: Http, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            error = Refusal(error.status_code, str(error.detail), error.headers)
        if isinstance(error, RequestValidationError):
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"][1:]))
            error = UsageError(f"{where}: {first['msg'].lower()}")
        return problem(error)

    for kind in (RetrieveError, Refusal, HTTPException, RequestValidationError, MemoryError):
        app.add_exception_handler(kind, told)


def _add_questions(app: FastAPI, service: Service) -> None:
    """Routes that take a picture."""

    def route(question: Question) -> Callable[[Http], Awaitable[Response]]:
        async def answered(http: Http) -> Response:
            return await ask(service, question, http)

        return answered

    for path, question in QUESTIONS.items():
        app.add_api_route(
            path,
            route(question),
            methods=["POST"],
            name=path.rpartition("/")[2],
            summary=question.summary,
            response_model=question.answered,
            responses=_PROBLEMS,
            openapi_extra=bodies(question.asked, question.example),
        )


def _add_images(app: FastAPI, service: Service) -> None:
    """Routes that show pictures."""
    live, desk = service.live, service.desk

    async def jpeg(key: object, make: Callable[[], bytes], headers: dict[str, str]) -> Response:
        found = service.thumbnails.get(key)
        if found is None:
            found = await desk.do("thumbnail", partial(service.thumbnails.made, key, make))
        return Response(found, headers=headers, media_type="image/jpeg")

    @app.get("/v1/images", summary="Images drawn from the gallery", response_model=words.Gallery)
    async def images(
        count: Annotated[int, Query(ge=1, le=words.MOST_HITS)] = 24,
        seed: Annotated[int, Query(ge=0, lt=2**32)] = 0,
        where: Names = [],  # noqa: B006
    ) -> Response:
        version = live.current
        return answer(await desk.do("search", lambda: draw(version, count, seed, where)))

    @app.get("/v1/images/{content}/{row}", summary="A thumbnail of an image", responses=_PROBLEMS)
    async def image(content: str, row: int, side: int = SIDES[1]) -> Response:
        version = live.current
        place = version.row(content, row)
        _check_side(side)
        key = content, row, side
        return await jpeg(key, lambda: thumbnail(version.path(place), side), _FOR_EVER)

    @app.get("/v1/pictures/{picture}", summary="A thumbnail of a picture", responses=_PROBLEMS)
    async def picture(picture: words.Id) -> Response:
        version, digest = live.current, bytes.fromhex(picture)

        def make() -> bytes:
            found = service.pictures.thumbnail(digest)
            if found is None:
                row = version.held.row_of(digest)
                if row is None:
                    raise Refusal(404, f"no picture {picture} is kept; send it again")
                found = thumbnail(version.path(row), SIDES[1])
            return found

        return await jpeg(digest, make, _A_WHILE)

    @app.get(
        "/v1/attention/{picture}", summary="Where the model looks in a picture", responses=_PROBLEMS
    )
    async def attention(
        picture: words.Id,
        present: Names = [],  # noqa: B006
        absent: Names = [],  # noqa: B006
        like: Names = [],  # noqa: B006
    ) -> Response:
        wish = words.Wish(present=present, absent=absent, like=like, where=[], keep=None)
        version = live.current
        found = await desk.do("encode", lambda: look(service, version, picture, wish))
        return Response(found, headers=_A_WHILE, media_type="image/jpeg")


def _check_side(side: int) -> None:
    if side not in SIDES:
        raise UsageError(f"side must be one of {', '.join(map(str, SIDES))}, not {side}")


def _add_state(app: FastAPI, service: Service) -> None:
    """Routes about the service."""
    live, desk = service.live, service.desk

    @app.get("/v1/schema", summary="What can be asked for")
    async def schema() -> Response:
        version = live.current
        return answer(await desk.do("schema", lambda: version.schema))

    @app.get("/healthz", summary="Whether the process answers")
    async def healthz() -> Response:
        return answer({"status": "ok"})

    @app.get("/readyz", summary="Whether there is an index that answers, and which")
    async def readyz() -> Response:
        version = live.current
        return answer({"status": "ok", "content": version.content, "images": len(version.held)})

    @app.get("/metrics", summary="For Prometheus")
    async def prometheus() -> Response:
        content, kind = await asyncio.to_thread(metrics)
        return Response(content, headers={"Content-Type": kind})


def _add_edits(app: FastAPI, service: Service, edits: Edits) -> None:
    """Routes that change the index."""
    live = service.live

    @app.post("/v1/images", summary="Put a picture into the index", response_model=words.Edited)
    async def add(http: Http) -> Response:
        edits.check(http)
        told, upload = await read(http, Labels)
        return answer(asdict(await edits.add(upload, told.labels)))

    @app.delete(
        "/v1/images/{content}/{row}",
        summary="Take an image out of the index",
        response_model=words.Edited,
    )
    async def remove(http: Http, content: str, row: int) -> Response:
        edits.check(http)
        version = live.current
        return answer(asdict(await edits.remove(version, version.row(content, row))))


def _add_page(app: FastAPI) -> None:
    """The page's own files, read once."""
    files = {
        file.name: (file.read_bytes(), _KINDS[file.name.rpartition(".")[2]])
        for file in resources.files("service").joinpath("page").iterdir()
    }

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _file("index.html")

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return _file("favicon.svg")

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        return _file(name)

    def _file(name: str) -> Response:
        if name not in files:
            raise Refusal(404, f"there is no {name}")
        content, kind = files[name]
        return Response(content, headers={"Cache-Control": "no-cache", "Content-Type": kind})
