"""Hits chosen from a ranking, against a loop over all of it."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.hits import choose_hits, first_fetch
from retrieval.request import Request

SIZE = 300


def slow(request: Request, order, scores, copies, items) -> tuple[list[int], int]:
    hits, seen, left_out = [], set(), 0
    for row in order:
        if copies[row]:
            left_out += 1
            continue
        if request.one_per_item and items[row] >= 0:
            if items[row] in seen:
                continue
            seen.add(items[row])
        hits.append(row)
        if len(hits) == request.offset + request.top_k:
            break
    return [row for row in hits[request.offset :] if scores[row] >= request.min_score], left_out


@pytest.mark.parametrize("share_of_copies", [0, 0.5, 1])
@pytest.mark.parametrize("items_there", [1, 4, 500])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"top_k": 1},
        {"top_k": 20, "offset": 7},
        {"top_k": 10**30},
        {"offset": 10**30},
        {"top_k": 50, "min_score": 0.9},
        {"min_score": 0.2, "offset": 30},
    ],
)
@pytest.mark.parametrize("per_item", [False, True])
def test_hits_are_those_of_a_loop(share_of_copies, items_there, asked, per_item: bool) -> None:
    rng = np.random.default_rng([int(10 * share_of_copies), items_there])
    scores = rng.random(SIZE).astype(np.float32)
    copies = rng.random(SIZE) < share_of_copies
    items = rng.integers(-1, items_there, SIZE)
    order = np.argsort(-scores, kind="stable")
    request = Request("", **asked, one_per_item=per_item)

    def search(k: int) -> tuple[np.ndarray, np.ndarray]:
        return order[:k], scores[order[:k]]

    fetch = first_fetch(request, SIZE)
    found = choose_hits(
        request, search(fetch), SIZE, search,
        lambda rows: copies[rows], (lambda rows: items[rows]) if per_item else None,
    )  # fmt: skip
    hits, left_out = slow(request, order.tolist(), scores, copies, items)
    assert found.rows.tolist() == hits
    np.testing.assert_array_equal(found.scores, scores[hits])
    if "min_score" not in asked:  # else the loop goes on below it
        assert found.copies == left_out


def test_no_images_at_all() -> None:
    nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
    found = choose_hits(Request(""), nothing, 18, lambda k: nothing, None, None)
    assert (len(found.rows), found.copies) == (0, 0)
