"""The results file of one machine, which several sittings fill row by row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.machine import commit_name, cores, machine_name, memory_bytes, vector_instructions
from benchmarks.speed.row import Row, growth
from indexer.store import Store
from training.errors import DataError
from training.models.conditioned import ConditionedEmbedder


def stem(device: str) -> str:
    """The file's name without its ending.

    `speed-cpu-2-cores-avx2` of a processor, or `speed-` and the name of a GPU.
    """
    name = machine_name(device).rpartition(", ")[2]
    if device == "cpu":
        name = f"cpu {cores()} cores {vector_instructions()}"
    words = "".join(c if c.isalnum() else " " for c in name.casefold()).split()
    return "-".join(["speed", *words])


def describe(store: Store, model: ConditionedEmbedder, device: str) -> dict[str, Any]:
    """What was measured, on what: a JSON-ready dict without rows."""
    height, width = store.grid
    return {
        "machine": machine_name(device),
        "memory": memory_bytes(device),
        "commit": commit_name(),
        "source": {
            "dataset": store.manifest.dataset,
            "images": len(store),
            "backbone": model.config.backbone,
            "dim": store.dim,
            "cells": height * width,
            "values": store.schema.size,
            "attributes": len(store.schema.attributes),
        },
    }


def merge(
    before: dict[str, Any] | None,
    now: dict[str, Any],
    rows: Sequence[Row],
    settings: dict[str, int] | None = None,
) -> dict[str, Any]:
    """The results with new rows, which take the place of older ones of the same operation and size.

    Args:
        before: the file's content, or None.
        now: what `describe` gave.
        rows: measured now, at this commit.
        settings: with which.

    Raises:
        DataError: the file holds rows of other maps.
    """
    if before is not None and before["source"] != now["source"]:
        raise DataError(
            f"the results there are of {_maps(before)}, this index is of {_maps(now)}; name "
            "another folder by --results"
        )
    kept = {} if before is None else {_key(row): row for row in rows_of(before)}
    kept |= {_key(row): replace(row, commit=now["commit"], settings=settings) for row in rows}
    found = sorted(kept.values(), key=lambda row: (order(row.what), row.what, row.size or 0))
    slopes = {what: round(value, 3) for what, value in growth(found).items()}
    return now | {"rows": [row.to_json() for row in found], "growth": slopes}


def _maps(data: dict[str, Any]) -> str:
    s = data["source"]
    return f"{s['images']:,} images of {s['dataset']} ({s['backbone']}, {s['cells']} x {s['dim']})"


def read_results(path: Path) -> dict[str, Any] | None:
    """The content of a results file, None if there is none; raises DataError if it is broken."""
    if not path.is_file():
        return None
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        rows_of(data)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no results file of this benchmark ({error}); move it"
        ) from error
    return data


def commits_of(data: dict[str, Any]) -> str:
    """The commits at which the rows were measured, in their order."""
    return ", ".join(dict.fromkeys(row.commit for row in rows_of(data)))


def rows_of(data: dict[str, Any]) -> list[Row]:
    """The rows of a results file."""
    return [Row.from_json(row) for row in data["rows"]]


def order(what: str) -> int:
    """Where an operation stands: as in the list of the issue that the benchmark answers."""
    starts = ("exact", "cold", "query under", "encode", "build", "retrieve", "kernel", "index")
    return next((n for n, start in enumerate(starts) if what.startswith(start)), len(starts))


def _key(row: Row) -> tuple[str, int | None]:
    return row.what, row.size
