"""Figures that others published, to print beside ours and never as reproduced.

They hold for the official query and candidate files of each dataset's test split, under type
conditions. `published_for` therefore gives them only for a run with the same number of queries.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedTable:
    """MAP in percent as printed in papers.

    Args:
        queries: number of queries of the official test files.
        columns: attributes, `all` last.
        rows: method -> one MAP a column.
        remark: what a reader should know.
    """

    queries: int
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]
    remark: str = ""


PUBLISHED = {
    "darn": PublishedTable(
        queries=4293,
        columns=(
            "category",
            "button",
            "colour",
            "length",
            "pattern",
            "shape",
            "collar",
            "sleeve length",
            "sleeve shape",
            "all",
        ),
        rows={
            "Triplet": (23.59, 38.07, 16.83, 39.77, 49.56, 47.00, 23.43, 68.49, 56.48, 40.14),
            "CSN": (34.10, 44.32, 48.38, 53.68, 54.09, 56.32, 31.82, 78.05, 58.76, 50.86),
            "ASEN": (36.69, 46.96, 51.35, 56.47, 54.49, 60.02, 34.18, 80.11, 60.04, 53.31),
            "M2Fashion": (36.91, 48.03, 51.14, 57.51, 56.09, 60.77, 35.05, 81.13, 62.23, 54.29),
            "RPF": (45.18, 54.92, 55.08, 63.51, 57.04, 63.54, 41.20, 86.95, 62.43, 58.80),
        },
        remark="CSN's colour is as printed; 47.38 fits its own total.",
    ),
    "deepfashion": PublishedTable(
        queries=5525,
        columns=("all",),
        rows={
            "Triplet": (7.36,),
            "CSN": (8.01,),
            "ASEN": (8.74,),
            "ASEN++": (9.64,),
            "RPF": (10.22,),
            "CRL": (11.33,),
        },
    ),
    "fashionai": PublishedTable(queries=3600, columns=("all",), rows={"RPF": (70.11,)}),
}
"""Dataset name -> its published table."""


def published_for(dataset: str, split: str, mode: str, queries: int) -> PublishedTable | None:
    """The published table that a run may be shown beside, or None.

    Args:
        dataset: name of the dataset.
        split: name of the split.
        mode: `type` or `value`; nothing published is comparable with `value`.
        queries: number of queries that the split offers. Another number means other lists
            (rendered images in DARN's layout, an own split), with which nothing is comparable.
    """
    table = PUBLISHED.get(dataset.casefold())
    if table is None or split != "test" or mode != "type" or queries != table.queries:
        return None
    return table
