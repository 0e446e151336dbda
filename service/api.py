"""What is asked over HTTP, read and checked, and what a version of the index answers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import Request as Http
from PIL import Image
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from indexer.hold.held import Outdated
from retrieval.hits import known_values
from retrieval.picture import Picture
from retrieval.query_vector import Formula, formula_of
from retrieval.request import Request, parse_filters, resolve, resolve_filters
from retrieval.sheet import overlay
from service import words
from service.desk import Desk
from service.live import Live, Version
from service.pictures import Pictures
from service.problems import Refusal
from service.thumbnails import Kept, jpeg, thumbnail
from training.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)

_SHOWN = 320  # pixels of the thumbnail of a picture that was sent
_FIELDS = 256
_NOBODY = Picture(np.zeros(0, np.float32), np.zeros(0, np.float32), None)


@dataclass(frozen=True)
class Service:
    """What the routes share."""

    live: Live
    desk: Desk
    pictures: Pictures
    thumbnails: Kept


def bodies(model: type[BaseModel], example: Any) -> dict[str, Any]:
    """What a route takes, for the OpenAPI document: JSON or, with a file `upload`, a form."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    content: dict[str, Any] = {
        "application/json": {"schema": _inlined(schema, definitions), "example": example}
    }
    if "candidates" not in schema["properties"]:  # of which no field of a form can be made
        form = {**schema["properties"], "upload": {"type": "string", "format": "binary"}}
        content["multipart/form-data"] = {"schema": {"type": "object", "properties": form}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return definitions[schema["$ref"].rpartition("/")[2]]
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    return [_inlined(one, definitions) for one in schema] if isinstance(schema, list) else schema


def answer(data: Any) -> Response:
    """JSON."""
    content = json.dumps(data, allow_nan=False).encode()
    return Response(content, media_type="application/json")


async def read(http: Http, model: type[Model]) -> tuple[Model, bytes | None]:
    """What was sent, checked, and the file `upload` if it is a form with one; UsageError, and
    `Refusal` for another type. The door holds the whole body in memory."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    upload: bytes | None = None
    if kind == "application/json":
        try:
            data = json.loads(await http.body())
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the body is no JSON: {error}") from error
    elif kind == "multipart/form-data":
        data, upload = await _form(http, model)
    else:
        raise Refusal(415, f"a body of type {kind!r}; send application/json or multipart/form-data")
    try:
        return model.model_validate(data), upload
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where or 'the body'}: {first['msg'].lower()}") from error


async def _form(http: Http, model: type[BaseModel]) -> tuple[dict[str, Any], bytes | None]:
    parser = MultiPartParser(http.headers, http.stream(), max_files=1, max_fields=_FIELDS)
    parser.spool_max_size = 2**40  # never to a disk: the door has limited the body
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise UsageError(f"the form cannot be read: {error.message}") from error
    lists = {name for name, own in model.model_fields.items() if "list" in str(own.annotation)}
    data: dict[str, Any] = {}
    upload = None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "upload":
                raise UsageError(f"a file as {name!r}; send the picture as `upload`")
            upload = await value.read()
        elif name in lists:
            data.setdefault(name, []).append(value)
        else:
            data[name] = value
    return data, upload


def chosen(wish: words.Asking, upload: bytes | None) -> bytes | str:
    """The picture that is meant: the bytes of a file, or the name of one; UsageError unless it is
    exactly one."""
    given = [one for one in (wish.picture, wish.image, upload) if one is not None]
    if len(given) != 1:
        raise UsageError(
            "give one picture: a file as `upload` in a form, `picture`, the id of one that was "
            f"sent or found, or `image`, content/row; this has {len(given)} of them"
        )
    return given[0]


def request_of(wish: words.Wish, picture: Picture) -> Request:
    """A wish in the engine's terms; UsageError for a filter that is none."""
    own = wish.model_dump(exclude={"picture", "image", "where", "candidates"})
    return Request(picture, where=parse_filters(wish.where), **own)


def check(wish: words.Asking, version: Version) -> None:
    """Look up what a wish names, before any work; UsageError."""
    if isinstance(wish, words.Wish):
        resolve(version.engine.schema, version.held.columns, request_of(wish, _NOBODY))


def find(service: Service, version: Version, which: bytes | str, shown: bool = False) -> Picture:
    """The picture that is meant, encoded if it has to be; one that is `shown` gets a thumbnail.
    Slow. Raises `Refusal`; DataError for a file that is no picture."""
    pictures, model = service.pictures, version.held.model
    if isinstance(which, bytes):
        digest = hashlib.sha256(which).digest()
        found = pictures.find(model, digest)
        if found is None or (shown and pictures.thumbnail(digest) is None):
            found = version.engine.encode(which)
            pictures.keep(model, found, thumbnail(which, _SHOWN) if shown else None)
        return found
    if "/" in which:
        content, _, row = which.partition("/")
        return version.picture(version.row(content, int(row)))
    digest = bytes.fromhex(which)
    found = pictures.find(model, digest)
    if found is None:
        place = version.held.row_of(digest)
        if place is None:
            raise Refusal(404, f"no picture {which} is kept; send it again")
        found = version.picture(place)
    return found


def _id(picture: Picture) -> str:
    return "" if picture.digest is None else picture.digest.hex()


def _place(version: Version, row: int, listed: str, digest: bytes) -> dict[str, str]:
    """How an image is called."""
    image = f"{version.content}/{row}"
    path = listed.encode("utf-8", "backslashreplace").decode()
    return {"path": path, "image": image, "url": f"/v1/images/{image}", "picture": digest.hex()}


def query(version: Version, wish: words.Query, picture: Picture) -> dict[str, Any]:
    """The hits of a request."""
    (result,) = version.engine.answers([request_of(wish, picture)])
    told = result.to_json() | {"content": version.content, "picture": _id(picture)}
    del told["image"]
    digests = version.held.digests_of(np.array([hit.row for hit in result], dtype=np.int64))
    for hit, digest in zip(told["hits"], digests, strict=True):
        hit |= _place(version, hit.pop("row"), hit["listed"], digest.tobytes())
    return told


def keep(version: Version, wish: words.Asking, picture: Picture) -> dict[str, Any]:
    """The id of a picture that was encoded."""
    return {"picture": _id(picture), "thumbnail": f"/v1/pictures/{_id(picture)}"}


def tag(version: Version, wish: words.Asking, picture: Picture) -> dict[str, Any]:
    """What the model sees in a picture, attribute by attribute."""
    schema, attributes = version.engine.schema, []
    for number, attribute in enumerate(schema.attributes):
        own = schema.slice_of(number)
        chances = picture.chances[own].tolist()
        named = zip(schema.value_names[own], attribute.values, chances, strict=True)
        values = [{"name": n, "value": v, "chance": round(c, 4)} for n, v, c in named]
        attributes.append({"attribute": attribute.name, "multi": attribute.multi, "values": values})
    return {"picture": _id(picture), "attributes": attributes}


def rank(version: Version, wish: words.Rerank, picture: Picture) -> dict[str, Any]:
    """Candidates of another store by the full formula."""
    layout = version.held.layout
    codes = np.empty((len(wish.candidates), layout.width), np.uint8)
    for place, one in enumerate(wish.candidates):
        try:
            own = base64.b64decode(one.descriptor, validate=True)
        except ValueError as error:
            raise UsageError(f"candidate {one.id!r}: its descriptor is no base64") from error
        if len(own) != layout.width:
            raise UsageError(
                f"candidate {one.id!r}: a descriptor of {len(own)} bytes, not {layout.width}"
            )
        codes[place] = np.frombuffer(own, np.uint8)
    formula = _formula(version, wish, picture)
    scores, alike = formula.scores(codes).clip(0, 1), formula.alike.scores(codes).clip(0, 1)
    ranked = np.argsort(-scores, kind="stable").tolist()
    return {
        "candidates": [
            {
                "id": wish.candidates[n].id,
                "score": round(float(scores[n]), 6),
                "likeness": round(float(alike[n]), 6),
            }
            for n in ranked
        ]
    }


def embed(version: Version, wish: words.Wish, picture: Picture) -> dict[str, Any]:
    """The query vector of a wish, and the picture's descriptor."""
    formula = _formula(version, wish, picture)
    descriptor = version.held.layout.pack(picture.chances[None], picture.nuance[None])[0]
    return {
        "model": version.held.model,
        "picture": _id(picture),
        "weights": formula.vector.weights.tolist(),
        "constant": float(formula.vector.constant),
        "linear": formula.linear,
        "descriptor": base64.b64encode(descriptor.tobytes()).decode(),
    }


def _formula(version: Version, wish: words.Wish, picture: Picture) -> Formula:
    schema, layout = version.engine.schema, version.held.layout
    terms = resolve(schema, version.held.columns, request_of(wish, picture))
    return formula_of(layout, schema, picture.chances, picture.nuance, terms.asked)


@dataclass(frozen=True)
class Question:
    """A route that takes a picture: what is sent and answered, an example, and what finds the
    answer; `shown`: the picture will be, too."""

    summary: str
    asked: type[words.Asking]
    answered: type[BaseModel]
    example: dict[str, Any]
    reply: Callable[[Version, Any, Picture], dict[str, Any]]
    shown: bool = False


_SOME = {"picture": "0" * 64}
_ONE = {"id": "sku-1", "descriptor": "AAEC..."}
QUESTIONS = {
    "/v1/query": Question(
        "Find the images that are like a picture and have the named values",
        words.Query,
        words.Answer,
        words.QUERY_EXAMPLE,
        query,
    ),
    "/v1/pictures": Question(
        "Encode a picture once, to ask often", words.Asking, words.Kept, _SOME, keep, shown=True
    ),
    "/v1/tag": Question(
        "The chance of every value in a picture", words.Asking, words.Tags, _SOME, tag
    ),
    "/v1/embed": Question(
        "The query vector of a wish, for a vector store of yours",
        words.Wish,
        words.Vector,
        _SOME | {"present": ["floral"]},
        embed,
    ),
    "/v1/rerank": Question(
        "Score candidates of a vector store of yours by the full formula",
        words.Rerank,
        words.Ranking,
        _SOME | {"candidates": [_ONE]},
        rank,
    ),
}


async def ask(service: Service, question: Question, http: Http) -> Response:
    """Answer a question."""
    wish, upload = await read(http, question.asked)
    which, kind = chosen(wish, upload), "search" if upload is None else "encode"

    async def asked(version: Version) -> Response:
        check(wish, version)

        def work() -> dict[str, Any]:
            return question.reply(version, wish, find(service, version, which, question.shown))

        return answer(await service.desk.do(kind, work))

    try:
        return await asked(service.live.current)
    except Outdated:  # by a database that holds another version by now
        await service.live.reload()
        return await asked(service.live.current)


def draw(version: Version, count: int, seed: int, where: list[str]) -> dict[str, Any]:
    """Images drawn from those that pass."""
    held, schema, images = version.held, version.engine.schema, []
    filters = resolve_filters(schema, held.columns, parse_filters(where))
    rows = held.rows(held.passing(filters) if filters else None)
    drawn = np.random.default_rng(seed).permutation(rows)[:count]
    found = held.records(drawn)
    of_each = drawn.tolist(), found.paths, found.digests, found.labels, found.payload
    for row, path, digest, states, payload in zip(*of_each, strict=True):
        told = {"known": known_values(schema, states), "payload": payload}
        images.append(_place(version, row, path, digest.tobytes()) | told)
    return {"content": version.content, "passed": len(rows), "images": images}


def look(service: Service, version: Version, which: str, wish: words.Wish) -> bytes:
    """Where the model looks under a wish, over a picture that is kept or of the gallery. Slow."""
    schema, digest = version.engine.schema, bytes.fromhex(which)
    condition = schema.condition(wish.present, wish.absent, wish.like)
    if not condition.any():
        raise UsageError("name a value or an attribute to look for: present, absent or like")
    key = "attention", version.held.model, which, condition.tobytes()

    def make() -> bytes:
        row = version.held.row_of(digest)
        source: bytes | Path | None = service.pictures.thumbnail(digest)
        if row is not None:
            source = version.path(row)
        if source is None:
            raise Refusal(404, f"no picture {which} is kept; send it again")
        pixels = version.held.preprocessing.open(source)
        seen = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        return jpeg(overlay(seen, version.attention(pixels, condition), version.offset))

    return service.thumbnails.made(key, make)
