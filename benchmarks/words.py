"""Labels that titles tell, against the labels that are known.

    retrieve bench words --dataset fashion-products --text name

Of one split's rows whose label is known: how many of the values that are found are right
(precision), and how many of all are found (recall); an attribute of one value gets one value a row.
Beside it a plain search for the value's own word, of several the longest, then the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Bench, Data, Result, bench_command, table
from retrieval.options import DatasetOptions, split_names
from retrieval.vocabulary import Vocabulary, read_vocabulary
from retrieval.words import Words
from training.datasets.dataset import Dataset
from training.errors import UsageError
from training.schema import Attribute, Schema


@dataclass(frozen=True, kw_only=True)
class Options(Bench, DatasetOptions):
    """Which titles."""

    split: Annotated[str, "Rows of this split."] = "test"


def found_by_words(
    texts: Sequence[str], schema: Schema, vocabulary: Vocabulary
) -> NDArray[np.bool_]:
    """Values that texts tell, [N, K]."""
    words = Words(schema, vocabulary)
    out = np.zeros((len(texts), schema.size), dtype=bool)
    for row, text in enumerate(texts):
        out[row, [schema.value(name) for name in words.understand(text).present]] = True
    return out


def found_by_search(texts: Sequence[str], attribute: Attribute) -> NDArray[np.bool_]:
    """Values whose own name stands in a text as a word, its hyphens as blanks, [N, values]."""
    spelled = [re.sub(r"[-_ ]+", "[-_ ]?", value.casefold()) for value in attribute.values]
    out = np.zeros((len(texts), len(spelled)), dtype=bool)
    for row, text in enumerate(texts):
        hits = [
            (hit.end() - hit.start(), hit.start(), place)
            for place, name in enumerate(spelled)
            for hit in re.finditer(rf"\b{name}\b", text.casefold())
        ]
        if hits:
            out[row, max(hits)[-1]] = True
    return out


def measure(dataset: Dataset, text: str, split: str) -> list[Data]:
    """Precision and recall by attribute."""
    rows = np.flatnonzero(dataset.splits == split)
    texts = [dataset.payload[text][row] for row in rows]
    words = found_by_words(texts, dataset.schema, read_vocabulary())
    out = []
    for number, attribute in enumerate(dataset.schema.attributes):
        own = dataset.schema.slice_of(number)
        true = dataset.labels[rows, own] == 1
        known = true.any(axis=1)
        figures: Data = {"attribute": attribute.name, "labels": int(true.sum())}
        for how, found in (
            ("words", words[:, own]),
            ("search", found_by_search(texts, attribute)),
        ):
            right = int((found & true).sum())
            told = int(found[known].sum())
            figures[how] = {
                "right": right,
                "told": told,
                "precision": round(right / max(told, 1), 4),
                "recall": round(right / max(figures["labels"], 1), 4),
            }
        out.append(figures)
    return out


def markdown(data: Data) -> str:
    """The figures as Markdown."""
    header = ["attribute", "labels", "precision", "recall", "plain search: precision", "recall"]
    rows = [
        [row["attribute"], f"{row['labels']:,}"]
        + [
            f"{row[how][what]:.3f}"
            for how in ("words", "search")
            for what in ("precision", "recall")
        ]
        for row in data["rows"]
    ]
    return table(
        header,
        rows,
        f"{data['texts']:,} texts of {data['dataset']}, {data['split']}, column {data['text']!r}, "
        "by the shipped vocabulary and the values' own names. Plain search: for the value's own "
        f"name. Commit {data['commit']}.",
    )


@bench_command("words", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Compare the labels that titles tell with those that are known."""
    dataset = options.load()
    text = next(iter(split_names("--text", options.text)), None)
    if text not in dataset.payload:
        raise UsageError(f"--text names a column of text: {', '.join(dataset.payload)}")
    yield (
        f"words-{dataset.name}",
        {
            "dataset": dataset.name,
            "split": options.split,
            "text": text,
            "texts": int((dataset.splits == options.split).sum()),
            "rows": measure(dataset, text, options.split),
        },
    )
