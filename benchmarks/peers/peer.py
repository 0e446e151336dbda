"""Systems that answer one question: a picture, and values that hits should have.

What one would build without this engine keeps a pooled embedding of each picture, one unit vector,
and the values that the model predicts as tags; it filters by the tags and sorts by the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.search.lists import load_faiss
from retrieval.engine import Engine
from retrieval.evaluation.scorer import Scorer
from retrieval.picture import Picture
from retrieval.request import Request
from training.descriptor import Floats

Rows = NDArray[np.int64]

Tags = NDArray[np.bool_]
"""Which values are predicted, [N, K]."""


FIRST = 50
"""Answers that are judged: ten, and room for pictures of which is not known what they have."""


@dataclass(frozen=True)
class Question:
    """A picture that was encoded before, as an embedding [D] and as the engine has it, values by
    flat index, and the dial, 0..1, which embeddings do not have; None: the default."""

    embedding: Floats
    picture: Picture
    values: tuple[int, ...] = ()
    keep: float | None = None


class Peer(Protocol):
    """One system over a gallery of N pictures."""

    name: str
    """Its row in tables."""

    def ask(self, question: Question, count: int) -> Rows:
        """Rows of the best `count` pictures, best first; fewer if fewer have all the values."""
        ...


class FaissPeer(Peer):
    """Every embedding [N, D] in a flat index, of which those with the tags are compared."""

    name = "embedding, tags, faiss flat"

    def __init__(self, embeddings: Floats, tags: Tags) -> None:
        self._faiss = load_faiss()
        self._index = self._faiss.IndexFlatIP(embeddings.shape[1])
        self._index.add(embeddings)
        # A bit a picture, a row a value: what faiss' bitmaps are.
        self._having = np.packbits(tags.T, axis=1, bitorder="little")

    @property
    def bytes(self) -> int:
        """Memory of embeddings and tags."""
        return 4 * int(self._index.d) * int(self._index.ntotal) + self._having.nbytes

    def ask(self, question: Question, count: int) -> Rows:
        """See `Peer.ask`."""
        parameters: Any = None
        if question.values:
            having = np.bitwise_and.reduce(self._having[list(question.values)])
            selector = self._faiss.IDSelectorBitmap(having)
            parameters = self._faiss.SearchParameters(sel=selector)
        k = min(count, self._index.ntotal)
        rows: Rows = self._index.search(question.embedding[None], k, params=parameters)[1][0]
        return rows[rows >= 0]


class OwnPeer(Peer):
    """An open index, asked as a program asks it; `exact`: every descriptor is scored."""

    def __init__(self, engine: Engine, exact: bool = False) -> None:
        self.name = "this engine, exact" if exact else "this engine"
        self._engine, self._exact = engine, exact

    def ask(self, question: Question, count: int) -> Rows:
        """See `Peer.ask`; no picture is left out, whatever it has."""
        names = [self._engine.schema.value_names[value] for value in question.values]
        dial, exact = question.keep, self._exact
        request = Request(question.picture, names, top_k=count, keep=dial, exact=exact)
        return np.array([hit.row for hit in self._engine.query(request).hits], dtype=np.int64)


class PeerScorer(Scorer):
    """A peer's own answers, at one dial, as scores of all pictures, which `questions` has without
    values.

    The first `FIRST` that it returns come first, in its order. The rest are as `others` ranks them,
    whose scores are below 100: a peer that filters returns few pictures of rare combinations.
    """

    def __init__(
        self, peer: Peer, questions: Sequence[Question], others: Scorer, keep: float | None = None
    ) -> None:
        self.ranked_by = peer.name if keep is None else f"{peer.name}, dial {keep:g}"
        self._peer, self._questions, self._others, self._keep = peer, questions, others, keep

    def named(
        self,
        query: int,
        wanted: Sequence[int],
        unwanted: Sequence[int] = (),
        keep: float | None = None,
    ) -> Floats:
        """Scores [N]; nothing is unwanted, and the dial is the scorer's own."""
        question = replace(self._questions[query], values=tuple(wanted), keep=self._keep)
        rows = self._peer.ask(question, FIRST)
        scores = self._others.named(query, wanted, (), self._keep).copy()
        scores[rows] = 100 + np.arange(len(rows), 0, -1, dtype=np.float32)
        return scores
