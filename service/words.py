"""What is sent and answered, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MOST_HITS, MOST_PASSED = 200, 10_000
MOST_CANDIDATES = 5000

Name = Annotated[str, StringConstraints(max_length=200)]
Names = Annotated[list[Name], Field(max_length=64)]
Id = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{64}$"),
    Field(description="SHA-256 of the picture's file, as `POST /v1/pictures` and hits give it."),
]
Image = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{16}/[0-9]{1,12}$"),
    Field(description="An image of the gallery: `content/row`, as hits give it."),
]


class Asking(BaseModel):
    """Which picture: `picture` or `image`, or neither where the file itself is sent."""

    model_config = ConfigDict(extra="forbid")
    picture: Id | None = None
    image: Image | None = None


class Wish(Asking):
    """A picture, and what hits should have in common with it, or not."""

    present: Names = Field([], description="Values that hits should have.")
    absent: Names = Field([], description="Values that they should not have.")
    like: Names = Field([], description="Attributes to compare by.")
    where: Names = Field(
        [],
        description="Search only images that pass, such as `colour=red`, `colour!=red`, "
        "`price<50`; of one name given again either will do.",
    )
    keep: float | None = Field(
        None, description='The dial, 0..1, from "change it" to "keep it".', allow_inf_nan=False
    )


class Query(Wish):
    """A wish, and how many hits of which kind are answered."""

    top_k: int = Field(10, ge=1, le=MOST_HITS, description="Hits at most.")
    offset: int = Field(0, ge=0, le=MOST_PASSED, description="So many of the best are passed over.")
    min_score: float = Field(0.0, allow_inf_nan=False, description="Only hits of at least this.")
    one_per_item: bool = Field(False, description="Of each item only its best image.")
    include_query: bool = Field(False, description="Byte-equal copies of the picture may be hits.")


class Candidate(BaseModel):
    """An image of a store of yours, with its descriptor."""

    id: Annotated[str, StringConstraints(max_length=200)]
    descriptor: Annotated[str, StringConstraints(max_length=20_000)] = Field(
        description="The bytes of the descriptor in base64."
    )


class Rerank(Wish):
    """A wish, and candidates to be scored by it."""

    candidates: Annotated[list[Candidate], Field(max_length=MOST_CANDIDATES)]


class Problem(BaseModel):
    """What went wrong (RFC 9457), with the message that the command line prints."""

    type: str
    title: str
    status: int
    detail: str


class Chance(BaseModel):
    """A value and the chance that the picture has it, 0..1."""

    name: str
    value: str
    chance: float


class Reading(BaseModel):
    """An attribute, its values in the schema's order."""

    attribute: str
    multi: bool
    values: list[Chance]


class Tags(BaseModel):
    """What the model sees in a picture."""

    picture: str
    attributes: list[Reading]


class Kept(BaseModel):
    """A picture that is encoded."""

    picture: str
    thumbnail: str


class Guess(BaseModel):
    """The likeliest value of an attribute."""

    value: str
    probability: float


class Judged(BaseModel):
    """A value that was asked for, in one image."""

    value: str
    wanted: bool
    verdict: str
    probability: float


class Hit(BaseModel):
    """One image of the gallery."""

    rank: int
    score: float
    likeness: float
    path: str
    image: str
    url: str
    picture: str
    known: dict[str, list[str]]
    predicted: dict[str, Guess]
    requested: list[Judged]
    item: int | None
    payload: dict[str, str]


class Answer(BaseModel):
    """Hits, best first."""

    content: str
    picture: str
    condition: str
    gallery: int
    searched: int
    left_out: int
    query_requested: list[Judged]
    query_predicted: dict[str, Guess]
    hits: list[Hit]


class Vector(BaseModel):
    """A query vector: the score of an image is `constant` + `weights` times its bytes. Where it is
    not `linear`, it finds candidates for `/v1/rerank`."""

    model: str
    picture: str
    weights: list[float]
    constant: float
    linear: bool
    descriptor: str


class Scored(BaseModel):
    """A candidate and its score, 0..1."""

    id: str
    score: float
    likeness: float


class Ranking(BaseModel):
    """Candidates, best first, ties in the order given."""

    candidates: list[Scored]


class Shown(BaseModel):
    """An image of the gallery, not a hit."""

    path: str
    image: str
    url: str
    picture: str
    known: dict[str, list[str]]
    payload: dict[str, str]


class Gallery(BaseModel):
    """Images drawn from those that pass."""

    content: str
    passed: int
    images: list[Shown]


class Edited(BaseModel):
    """What became of the index."""

    added: int
    changed: int
    unchanged: int
    removed: int
    images: int


QUERY_EXAMPLE: dict[str, Any] = {
    "picture": "0" * 64,
    "present": ["floral"],
    "absent": ["red"],
    "where": ["category=dress", "price<50"],
    "keep": 0.5,
    "top_k": 10,
    "one_per_item": True,
}
