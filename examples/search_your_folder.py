"""Search a folder of pictures without any labels, by a trained model.

    python examples/search_your_folder.py PICTURES RUN QUERY.jpg [VALUE ...]

Only what is new in PICTURES is encoded when it runs again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from indexer.build.build import build_index
from retrieval import Engine, Request
from training import load_checkpoint
from training.datasets.dataset import Dataset


def folder_of_pictures(root: Path, checkpoint_schema) -> Dataset:
    """Every picture below `root`, of which nothing is known."""
    kinds = {".jpg", ".jpeg", ".png", ".webp"}
    files = sorted(path for path in root.rglob("*") if path.suffix.casefold() in kinds)
    count = len(files)
    return Dataset(
        name=root.name,
        root=root,
        schema=checkpoint_schema,
        paths=[path.relative_to(root).as_posix() for path in files],
        labels=np.zeros((count, checkpoint_schema.size), np.int8),
        category=np.full(count, -1),
        category_names=(),
        splits=np.full(count, ""),
    )


def main(pictures: Path, run: Path, query: Path, values: list[str]) -> None:
    """Index the folder beside itself, and print the best ten."""
    checkpoint = load_checkpoint(run)
    dataset = folder_of_pictures(pictures, checkpoint.schema)
    index = pictures.with_name(f"{pictures.name}.index")
    build_index(dataset, dataset.rows_of("all"), checkpoint, index)
    for hit in Engine.open(index).query(Request(query, present=values)):
        chances = {value.name: round(value.probability, 2) for value in hit.requested}
        print(f"{hit.score:.3f}  {hit.path}  {chances or ''}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
