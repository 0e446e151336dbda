"""The validation figure that the trainer is handed: type-mode MAP over all attributes."""

from __future__ import annotations

from retrieval.evaluation.attribute_map import evaluate_attributes
from training.datasets.dataset import Dataset
from training.maps import MapBank


def validation_map(bank: MapBank, dataset: Dataset) -> float | None:
    """MAP (percent, query-weighted, type mode) on the `valid` split; None if nothing in it is
    relevant to any of its queries, so that it cannot tell one model from another.

    Args:
        bank: maps of the split's images.
        dataset: the split; its rows are the bank's.
    """
    found = evaluate_attributes(dataset, "valid", "type", bank.embed).all
    return None if found.queries_without_relevant == found.queries else found.map
