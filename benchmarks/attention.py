"""Whether attention can be trusted: its mass inside the true region of each rendered attribute.

    retrieve bench attention --checkpoint runs/wardrobe

Draws garments that the checkpoint never saw (another seed than the training's), whose parts' true
regions are known, and looks at the attention under each attribute's type condition. A cell's mass
counts by the share of the cell that is region; chance is the region's share of the picture. An
attribute is *located* if its region covers on average less than 15 % of the picture: the parts.
Category, colour, pattern and shape are read off the whole garment and reported apart. Needs a
checkpoint trained on `retrieve wardrobe`; writes the figures to `benchmarks/results/`.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import commit_name
from benchmarks.tables.markdown_grid import markdown_grid
from benchmarks.write_results import RESULTS, write_results
from retrieval.console import counting
from retrieval.evaluation.attention import LOCATED_BELOW, AttentionReport, attention_report
from retrieval.metrics import attention_share
from training.checkpoint import Checkpoint, load_checkpoint
from training.errors import DataError
from training.schema import Schema, normalise_name
from training.wardrobe.render import render
from training.wardrobe.spec import item_of, sample_spec
from training.wardrobe.vocabulary import ATTRIBUTES
from training.wardrobe.write_darn import DARN_NAMES

SEED = 271_828
"""Of the garments: far from the seeds that wardrobes are trained with."""

_BATCH = 25


@click.command("attention")
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), metavar="RUN")
@click.option("--images", type=click.IntRange(min=1), default=500, show_default=True)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=SEED,
    show_default=True,
    help="Of the garments drawn; must not be that of the training's wardrobe.",
)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def command(checkpoint: Path, images: int, seed: int, results: Path) -> None:
    """Measure the attention mass inside each attribute's region, against the region's area."""
    loaded = load_checkpoint(checkpoint)
    report = measure(loaded, images, seed)
    data = to_json(report, loaded, images, seed)
    model = loaded.model
    rival = "" if model.architecture == "m2fashion" else f"-{model.architecture}"
    stem = f"attention-wardrobe-{model.config.backbone}{rival}"
    write_results(results, stem, data, markdown(data))
    click.echo(markdown(data))


def measure(loaded: Checkpoint, images: int, seed: int) -> AttentionReport:
    """Draw pictures, run the model, and compare its attention with the true regions.

    Args:
        loaded: of a model with the wardrobe's attributes, or some of them.
        images: pictures drawn.
        seed: of the wardrobe that they are drawn from.

    Raises:
        DataError: the model knows no attribute of the wardrobe.
    """
    numbers = wardrobe_attributes(loaded.schema)
    names = list(numbers)
    model, preprocessing = loaded.model, loaded.preprocessing
    conditions = torch.stack([model.type_conditions[n] for n in numbers.values()])
    inside, area, others = (np.full((images, len(names)), math.nan) for _ in range(3))
    with counting("looking", images) as bar, torch.inference_mode():
        for start in range(0, images, _BATCH):
            indices = range(start, min(start + _BATCH, images))
            specs = [sample_spec(seed, index) for index in indices]
            drawn = [render(spec, preprocessing.size) for spec in specs]
            # Square pictures of the model's own size: preprocessing leaves them and the masks be.
            pixels = np.stack([preprocessing.fit(one.image) for one in drawn])
            maps = model.features(preprocessing.normalise(torch.from_numpy(pixels)))
            keys = model.keys(maps)
            alpha = torch.stack([model.attention(maps, c.unsqueeze(0), keys) for c in conditions])
            for index, spec, one, weights in zip(
                indices, specs, drawn, alpha.transpose(0, 1).double().numpy(), strict=True
            ):
                labels = spec.garment.labels()
                for column, name in enumerate(names):
                    if labels[name]:  # without sleeves there is no shape of them to look at
                        shares = attention_share(weights, one.masks[name])
                        inside[index, column] = shares[column]
                        others[index, column] = _mean_without(shares, column)
                        area[index, column] = one.masks[name].mean()
            bar(len(indices))
    items = np.array([item_of(index)[0] for index in range(images)], dtype=np.int64)
    return attention_report(names, inside, area, others, items, seed)


def wardrobe_attributes(schema: Schema) -> dict[str, int]:
    """Wardrobe attribute -> number in a checkpoint's schema, which may use DARN's names.

    Raises:
        DataError: if there is none.
    """
    own = {normalise_name(a.name): n for n, a in enumerate(schema.attributes)}
    found = {}
    for name, darn in zip(ATTRIBUTES, DARN_NAMES, strict=True):
        for spelling in (normalise_name(name), normalise_name(darn)):
            if spelling in own:
                found[name] = own[spelling]
    if not found:
        raise DataError(
            f"the checkpoint knows no attribute of the wardrobe ({', '.join(ATTRIBUTES)}), only "
            f"{', '.join(own)}; train one with: retrieve wardrobe DIR, retrieve train --dataset DIR"
        )
    return found


def to_json(report: AttentionReport, loaded: Checkpoint, images: int, seed: int) -> dict[str, Any]:
    """The figures as a JSON-ready dict; shares in 0..1."""
    rows = []
    for row in report.rows:
        rows.append(_rounded(asdict(row)))
    located = None if report.located is None else _rounded(asdict(report.located))
    return {
        "rows": rows,
        "located": located,
        "located_below": LOCATED_BELOW,
        "condition": "the attribute's type condition",
        "images": images,
        "seed": seed,
        "commit": commit_name(),
        "architecture": loaded.model.architecture,
        "backbone": loaded.model.config.backbone,
        "grid": list(loaded.model.grid),
        "checkpoint_hash": loaded.hash,
        "training": {k: loaded.training.get(k) for k in ("dataset", "seed", "epoch", "validation")},
    }


def markdown(data: dict[str, Any]) -> str:
    """The figures as Markdown."""
    header = ["attention, rendered garments", "inside the region", "region's area (chance)"]
    header += ["times chance", "95 % interval", "inside under the other conditions"]
    rows = []
    for row in sorted(data["rows"], key=lambda r: not r["located"]):
        others = "-" if row["others"] is None else f"{row['others']:.3f}"
        kind = "" if row["located"] else " (whole garment)"
        rows.append([row["attribute"] + kind, *_cells(row), others])
    if data["located"] is not None:
        rows.append(["**mean over the located**", *_cells(data["located"]), ""])
    lines = markdown_grid(header, rows)
    below = f"{data['located_below']:.0%}"
    height, width = data["grid"]
    lines += [
        "",
        f"{data['images']} garments of a seed that the training did not see, attention of "
        f"{height} x {width} cells under each attribute's type condition. Located: the region "
        f"covers on average less than {below} of the picture.",
        "",
    ]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["ratio_ci"]
    shares = [f"{row['inside']:.3f}", f"{row['area']:.3f}"]
    return [*shares, f"{row['ratio']:.2f}", f"{low:.2f} to {high:.2f}"]


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, figure in figures.items():
        if isinstance(figure, dict):  # an interval
            out[name] = [round(figure["low"], 4), round(figure["high"], 4)]
        elif isinstance(figure, float):
            out[name] = None if math.isnan(figure) else round(figure, 5)
        else:
            out[name] = figure
    return out


def _mean_without(shares: NDArray[np.float64], column: int) -> float:
    return float(np.delete(shares, column).mean()) if len(shares) > 1 else math.nan


if __name__ == "__main__":
    command()
