"""Labels that titles tell, against the labels that are known.

    retrieve bench words --dataset fashion-products --text name

Of one split's rows whose label is known: how many of the values that are found are right
(precision), and how many of all are found (recall); an attribute of one value gets one value a row.
Beside it a plain search for the value's own word, of several the longest, then the last; and the
share of labels that a title names at all, among others: more cannot be found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Bench, Data, Result, bench_command, table
from retrieval.options import DatasetOptions, split_names
from retrieval.vocabulary import read_vocabulary
from retrieval.words import Words
from training.datasets.dataset import Dataset
from training.errors import UsageError
from training.schema import Attribute, Schema


@dataclass(frozen=True, kw_only=True)
class Options(Bench, DatasetOptions):
    """Which titles."""

    split: Annotated[str, "Rows of this split, or all."] = "test"


def found_by_words(texts: Sequence[str], schema: Schema) -> NDArray[np.bool_]:
    """Values that texts tell by the shipped vocabulary, [N, K]."""
    words = Words(schema, read_vocabulary())
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
    """Precision and recall by attribute, of the rows of a split or of `all`."""
    schema = dataset.schema
    rows = np.flatnonzero((dataset.splits == split) | (split == "all"))
    texts = [dataset.payload[text][row] for row in rows]
    several = Schema(tuple(replace(a, multi=True) for a in schema.attributes))
    told = {
        "words": found_by_words(texts, schema),
        "search": np.hstack([found_by_search(texts, a) for a in schema.attributes]),
        "named": found_by_words(texts, several),
    }
    out = []
    for number, attribute in enumerate(schema.attributes):
        own = schema.slice_of(number)
        true = dataset.labels[rows, own] == 1
        labels = max(int(true.sum()), 1)
        figures: Data = {"attribute": attribute.name, "labels": labels}
        for how, found in told.items():
            right = int((found[:, own] & true).sum())
            count = int(found[true.any(axis=1), own].sum())
            precision, recall = right / max(count, 1), right / labels
            figures[how] = {"precision": round(precision, 4), "recall": round(recall, 4)}
        out.append(figures)
    return out


def markdown(data: Data) -> str:
    """The figures as Markdown."""
    header = ["attribute", "labels", "precision", "recall", "plain search: precision", "recall"]
    header.append("named in the title")
    rows = [
        [row["attribute"], f"{row['labels']:,}"]
        + [
            f"{row[how][what]:.3f}"
            for how in ("words", "search")
            for what in ("precision", "recall")
        ]
        + [f"{row['named']['recall']:.3f}"]
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
    rows = measure(dataset, text, options.split)
    texts = int(((dataset.splits == options.split) | (options.split == "all")).sum())
    about = {"dataset": dataset.name, "split": options.split, "text": text, "texts": texts}
    yield f"words-{dataset.name}", about | {"rows": rows}
