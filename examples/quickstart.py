"""The whole way in one page: draw garments, train, index, ask. `python examples/quickstart.py`.

A few minutes on two cores, and no download: the pictures are drawn by the project itself. With
your own, `load_dataset("shop")` reads a folder with a `labels.csv`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.wardrobe.write import write_catalogue
from indexer.build.build import build_index
from retrieval import Engine, Request
from training import load_checkpoint, load_dataset, train
from training.run import read_config

CONFIG = Path(__file__).parents[1] / "benchmarks/demo.toml"


def main(out: Path, count: int = 3000, epochs: int | None = None) -> None:
    """Leave pictures, model and index in `out`, and print hits."""
    write_catalogue(out / "garments", count, size=96)
    dataset = load_dataset(str(out / "garments"))

    config = read_config(CONFIG)
    if epochs is not None:
        config = replace(config, recipe=replace(config.recipe, epochs=epochs))
    report = train(dataset, config, out / "run")
    print(f"trained on {report.images:,} pictures")

    gallery = dataset.rows_of("test")
    build_index(dataset, gallery, load_checkpoint(out / "run"), out / "index")

    engine = Engine.open(out / "index")
    picture = engine.encode(dataset.root / dataset.paths[gallery[0]])
    for request in (
        Request(picture),  # what is like it
        Request(picture, present=["floral"], keep=0.5),  # like it, but floral
        Request(picture, like=["colour"], top_k=3),  # of its colour, whatever else
    ):
        result = engine.query(request)
        print(f"\n{result.condition}")
        for hit in result[:3]:
            print(f"  {hit.score:.3f}  {hit.path.name}  {hit.known}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart"))
