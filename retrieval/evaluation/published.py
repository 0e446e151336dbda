"""Figures that others published, to print beside ours and never as reproduced.

MAP holds for the official query and candidate files of each dataset's test split, under type
conditions. Tables 1 and 2 of the M2Fashion paper are of DeepFashion: category top-k accuracy and
attribute recall at k = 3 and 5, two figures a column. Which labels the model was told is not stated
there; some rows' All is the mean over the types and some is pooled; style and All of Upsampling
have not been reproduced by those who use its code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedTable:
    """A table as printed in papers, in percent.

    Rows are, by method, figures in the order of the columns (attributes, `all` last), None where
    there is none; `queries` is the number of queries of MAP's official test files.
    """

    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]
    title: str = ""
    queries: int = 0
    remark: str = ""

    def cells(self) -> list[list[str]]:
        """Each method and its figures as text."""
        shown = {m: ["-" if x is None else f"{x:.2f}" for x in row] for m, row in self.rows.items()}
        return [[method, *row] for method, row in shown.items()]


# fmt: off
PUBLISHED = {
    "darn": PublishedTable(
        queries=4293,
        columns=("category", "button", "colour", "length", "pattern", "shape", "collar",
                 "sleeve length", "sleeve shape", "all"),
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
        columns=("texture", "fabric", "shape", "part", "style", "all"),
        rows={
            **{method: (*[None] * 5, own) for method, own in (
                ("Triplet", 7.36), ("CSN", 8.01), ("ASEN", 8.74), ("ASEN++", 9.64),
                ("AG-MAN", 8.98),
            )},
            "RPF": (15.62, 8.30, 15.02, 7.38, 4.77, 10.22),
            "CRL": (*[None] * 5, 11.33),
        },
    ),
    "fashionai": PublishedTable(("all",), {"AG-MAN": (62.88,), "RPF": (70.11,)}, queries=3600),
}
"""Dataset name -> its published table."""

TABLE_1 = PublishedTable(
    title="Table 1 of the paper",
    columns=("category", "texture", "fabric", "shape", "part", "style", "all"),
    rows={
        "WTBI": (43.73, 66.26, 24.21, 32.65, 25.38, 36.06, 23.39, 31.26, 26.31, 33.24,
                 49.85, 58.68, 27.46, 35.37),
        "DARN": (59.48, 79.58, 36.15, 48.15, 36.64, 48.52, 35.89, 46.93, 39.17, 50.14,
                 66.11, 71.36, 42.35, 51.95),
        "FashionNet": (82.58, 90.17, 37.46, 49.52, 39.30, 49.84, 39.47, 48.59, 44.13, 54.02,
                       66.43, 73.16, 45.52, 54.61),
        "Corbiere": (86.30, 92.80, 53.60, 63.20, 39.10, 48.80, 50.10, 59.50, 38.80, 48.90,
                     30.50, 38.30, 23.10, 30.40),
        "Attentive": (90.99, 95.78, 50.31, 65.48, 40.31, 48.23, 53.32, 61.05, 40.65, 56.32,
                      68.70, 74.25, 51.53, 60.95),
        "Upsampling": (91.16, 96.12, 56.17, 65.83, 43.20, 53.52, 58.28, 67.80, 46.97, 57.43,
                       68.82, 74.13, 54.69, 63.74),
        "M2Fashion w/o ASA": (91.89, 96.13, 55.61, 65.17, 40.12, 54.73, 59.70, 68.98, 49.17, 59.19,
                              64.48, 71.82, 52.64, 62.37),
        "M2Fashion w/o ACA": (90.12, 95.15, 54.73, 64.82, 39.45, 53.27, 58.21, 66.72, 47.87, 57.53,
                              60.54, 68.61, 50.47, 60.07),
        "M2Fashion": (92.33, 96.65, 56.89, 66.31, 40.42, 55.83, 60.42, 69.87, 49.62, 61.17,
                      65.38, 72.79, 54.85, 64.76),
    },
)

TABLE_2 = PublishedTable(
    title="Table 2 of the paper",
    columns=("category", "all"),
    rows={
        "category only": (88.64, 93.84, None, None),
        "attribute only": (None, None, 48.65, 57.74),
        "category + attribute": (92.23, 96.65, 54.35, 64.76),
        "GAP": (91.72, 95.84, 53.63, 62.84),
        "GMP": (92.23, 96.65, 54.35, 64.76),
    },
    remark="Its 92.23 and 54.35 are 92.33 and 54.85 in Table 1.",
)
# fmt: on


def published_for(dataset: str, split: str, mode: str, queries: int) -> PublishedTable | None:
    """The published MAP that a run may be shown beside: of the same dataset, split, condition mode
    and number of queries; another number means other lists (rendered images in DARN's layout, an
    own split), with which nothing is comparable. Else None."""
    table = PUBLISHED.get(dataset.casefold())
    if table is None or (split, mode, queries) != ("test", "type", table.queries):
        return None
    return table
