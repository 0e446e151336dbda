"""What holds an index: the files of a folder on this machine, or a database.

Queries and the service know of it only what stands here. An image has a row, a number that means
it as long as it is there; which images are searched is told by something that each of them makes
for itself, of filters and of known labels: a mask, or a condition that a database evaluates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray

from indexer.search.flat import Rows
from training.descriptor import Bytes, DescriptorLayout, Floats
from training.errors import ResourceError
from training.images.preprocessing import Preprocessing
from training.schema import Schema

Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Filter:
    """One condition on a payload column, or on an attribute (by its folded name; `flat` is then
    the flat index of the value). Of several `=` on one name one has to hold, of others all."""

    name: str
    operator: Operator
    value: str
    flat: int | None


class Outdated(ResourceError):
    """Another version has taken the place of the one that is open, which is gone."""


class Column(Protocol):
    """A column of the payload."""

    @property
    def numeric(self) -> bool:
        """Whether all its cells are numbers, but for empty ones."""
        ...

    def told(self) -> dict[str, Any]:
        """What it holds, as `indexer.store.gallery.Column.told`."""
        ...


@dataclass(frozen=True)
class Records:
    """What is known of n images."""

    descriptors: Bytes  # [n, width]
    labels: NDArray[np.int8]  # label states [n, K]
    digests: NDArray[np.uint8]  # [n, 32], SHA-256 of the files
    items: Rows  # [n], -1 unknown
    paths: Sequence[str]  # relative to the root
    payload: Sequence[Mapping[str, str]]  # cells that are not empty, by column


Chosen = TypeVar("Chosen")
"""Images that are searched, as one kind of `Held` tells them."""


Asked = TypeVar("Asked")
Told = TypeVar("Told")


def remembered(method: Callable[[Asked], Told], answers: int) -> Callable[[Asked], Told]:
    """What a bound method gives, of which so many answers are kept; its object is not kept alive by
    it, since a version that nobody asks any more has to go at once."""
    weak = WeakMethod(method)

    @lru_cache(answers)
    def ask(asked: Asked) -> Told:
        own = weak()
        assert own is not None, "whoever asks holds it"
        return own(asked)

    return ask


class Held(ABC, Generic[Chosen]):
    """One version of an index, open for queries; threads may share it.

    Methods that take `chosen` mean all images by None. Rows are [n] int64; those that are not there
    raise IndexError. Of a version that is gone every method raises `Outdated`, and of a database
    that does not answer, ResourceError.
    """

    name: str
    """As it was opened."""
    schema: Schema
    layout: DescriptorLayout
    preprocessing: Preprocessing
    dataset: str
    model: str
    """Hash of weights, configuration and schema."""
    precision: str
    """Of the model's backbone."""
    content: str
    """Names the images and their rows, and the model."""
    root: Path
    """Folder that paths are relative to."""
    columns: Mapping[str, Column]
    """The payload's, by name."""
    has_items: bool
    """Whether of some image is known which item it shows."""
    remarks: tuple[str, ...] = ()
    """What a person should know of how it was opened."""
    seen: object
    """What `look` gave before it was opened."""

    @abstractmethod
    def __len__(self) -> int:
        """M, the images."""

    @abstractmethod
    def look(self) -> object:
        """Something that is equal as long as there is no other version; quick."""

    @abstractmethod
    def outdated(self) -> bool:
        """Whether there is another version."""

    @abstractmethod
    def ready(self) -> None:
        """Make what the first search needs."""

    @abstractmethod
    def read_model(self, name: str) -> bytes:
        """A file of the checkpoint; CorruptStoreError if it is damaged or not there."""

    @abstractmethod
    def passing(self, filters: tuple[Filter, ...]) -> Chosen:
        """Images that pass all filters."""

    @abstractmethod
    def parts(
        self, values: Sequence[int], chosen: Chosen | None
    ) -> Iterator[tuple[dict[int, bool], Chosen]]:
        """Part images by what is known of some values, by flat index: of each part that is not
        empty the values that are known and whether its images have them, and its images."""

    @abstractmethod
    def count(self, chosen: Chosen) -> int:
        """How many images there are."""

    @abstractmethod
    def rows(self, chosen: Chosen | None) -> Rows:
        """The rows of images, ascending."""

    @abstractmethod
    def search(
        self, weights: Floats, k: int, chosen: Chosen | None = None, exact: bool = False
    ) -> tuple[Rows, Floats]:
        """The best images by the inner product of weights [Q, width] with the bytes of descriptors:
        rows and scores [Q, k], best first, ties by row; -1 and -inf where there are fewer. `exact`
        reads every descriptor, else some of the best may be missed."""

    @abstractmethod
    def candidates(self, weights: Floats, count: int, chosen: Chosen | None = None) -> list[Rows]:
        """About the best `count` images of each query, as `search` takes them, in any order, for
        whoever scores them by more than a vector."""

    @abstractmethod
    def descriptors_of(self, rows: Rows) -> Bytes:
        """Descriptors [n, width]."""

    @abstractmethod
    def digests_of(self, rows: Rows) -> NDArray[np.uint8]:
        """SHA-256 of files [n, 32]."""

    @abstractmethod
    def items_of(self, rows: Rows) -> Rows:
        """Numbers of items [n], -1 unknown."""

    @abstractmethod
    def records(self, rows: Rows) -> Records:
        """All of some images."""

    @abstractmethod
    def row_of(self, digest: bytes) -> int | None:
        """The first image whose file has this SHA-256."""

    @abstractmethod
    def labelled(self) -> NDArray[np.int64]:
        """How many images are known to have each value, [K]."""
