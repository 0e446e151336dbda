"""A dataset in the words of a model that was trained on another one: values matched by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from indexer.align_labels import align_labels
from training.datasets.dataset import Dataset, RetrievalList, RetrievalProtocol
from training.errors import DataError
from training.schema import Schema, normalise_name


@dataclass(frozen=True)
class AlignedDataset:
    """A dataset with a model's schema, and what was left out.

    Args:
        dataset: labels and published lists in the model's numbering. What the dataset does not
            know is unknown of every image.
        unknown_to_model: attributes (`pattern`) and values (`colour:teal`) of the dataset alone.
        unknown_to_dataset: those of the model alone.
    """

    dataset: Dataset
    unknown_to_model: tuple[str, ...]
    unknown_to_dataset: tuple[str, ...]


def align_dataset(dataset: Dataset, schema: Schema) -> AlignedDataset:
    """Renumber labels and published lists by the names of attributes and values.

    Args:
        dataset: labelled images.
        schema: the model's.

    Raises:
        DataError: they have no value in common, so that nothing is left to measure.
    """
    if dataset.schema.hash == schema.hash:
        return AlignedDataset(dataset, (), ())
    aligned = align_labels(dataset.labels, dataset.schema, schema)
    if not aligned.matched:
        raise DataError(
            f"{dataset.name} and the checkpoint have no value in common: its attributes are "
            f"{', '.join(a.name for a in dataset.schema.attributes)}, the model's "
            f"{', '.join(a.name for a in schema.attributes)}; name the columns of labels.csv and "
            "their values as the model does"
        )
    return AlignedDataset(
        replace(
            dataset,
            schema=schema,
            labels=aligned.labels,
            protocols={
                split: RetrievalProtocol(
                    _renumbered(lists.queries, dataset.schema, schema),
                    _renumbered(lists.candidates, dataset.schema, schema),
                )
                for split, lists in dataset.protocols.items()
            },
        ),
        _only_in(dataset.schema, schema),
        _only_in(schema, dataset.schema),
    )


def _renumbered(listed: RetrievalList, source: Schema, target: Schema) -> RetrievalList:
    """The statements about values that both know."""
    flat = np.array(source.offsets)[listed.attributes] + listed.values
    new = _places(source, target)[flat]
    kept = new >= 0
    attributes = target.attribute_of[new[kept]]
    values = new[kept] - np.array(target.offsets)[attributes]
    return RetrievalList(listed.rows[kept], attributes, values)


def _places(source: Schema, target: Schema) -> NDArray[np.int64]:
    """Flat index in `target` of each value of `source`, -1 where it has none, [K] int64."""
    number = {name: flat for flat, name in enumerate(_names(target))}
    return np.array([number.get(name, -1) for name in _names(source)], dtype=np.int64)


def _only_in(source: Schema, target: Schema) -> tuple[str, ...]:
    """Attributes and values of `source` that `target` has not; of a whole attribute, its name."""
    theirs = {normalise_name(a.name) for a in target.attributes}
    places = _places(source, target)
    out: list[str] = []
    for number, attribute in enumerate(source.attributes):
        if normalise_name(attribute.name) not in theirs:
            out.append(attribute.name)
            continue
        own = places[source.slice_of(number)]
        out += [
            f"{attribute.name}:{value}"
            for value, place in zip(attribute.values, own, strict=True)
            if place < 0
        ]
    return tuple(out)


def _names(schema: Schema) -> list[tuple[str, str]]:
    return [
        (normalise_name(a.name), normalise_name(v)) for a in schema.attributes for v in a.values
    ]
