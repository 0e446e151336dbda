"""Whether attention can be trusted: its mass inside the true region of each rendered attribute.

    retrieve bench attention --checkpoint runs/wardrobe

Draws garments that the checkpoint never saw, whose parts' true regions are known, and looks at the
attention under each attribute's type condition. A cell's mass counts by the share of the cell that
is region; chance is the region's share of the picture. An attribute is *located* if its region
covers on average less than 15 % of the picture: the parts. Category, colour, pattern and shape are
read off the whole garment and reported apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from benchmarks.common import Bench, Data, Result, bench_command, table
from benchmarks.wardrobe.garment import ATTRIBUTES
from benchmarks.wardrobe.render import item_of, render, sample_spec
from retrieval.console import counting
from retrieval.evaluation.attention import LOCATED_BELOW, AttentionReport, attention_report
from retrieval.metrics import attention_share
from retrieval.options import COUNT
from retrieval.options import SEED as ANY_SEED
from training.checkpoint import Checkpoint, load_checkpoint
from training.errors import DataError
from training.images.tensors import normalise

SEED = 271_828
"""Of the garments: far from the seeds that wardrobes are trained with."""

_BATCH = 25


def measure(loaded: Checkpoint, images: int, seed: int) -> AttentionReport:
    """Draw pictures of a wardrobe's seed, run the model, compare its attention with the regions.

    Raises DataError: the model knows no attribute of the wardrobe.
    """
    model, preprocessing = loaded.model, loaded.preprocessing
    own = {attribute.name: number for number, attribute in enumerate(loaded.schema.attributes)}
    names = [name for name in ATTRIBUTES if name in own]
    if not names:
        raise DataError(
            f"the checkpoint knows no attribute of the wardrobe ({', '.join(ATTRIBUTES)}), only "
            f"{', '.join(own)}; train one with: retrieve wardrobe DIR, retrieve train --dataset DIR"
        )
    conditions = torch.stack([model.type_conditions[own[name]] for name in names])
    inside, area, others = (np.full((images, len(names)), math.nan) for _ in range(3))
    with counting("looking", images) as bar, torch.inference_mode():
        for start in range(0, images, _BATCH):
            indices = range(start, min(start + _BATCH, images))
            specs = [sample_spec(seed, index) for index in indices]
            drawn = [render(spec, preprocessing.size) for spec in specs]
            # Square pictures of the model's own size: preprocessing leaves them and the masks be.
            pixels = np.stack([preprocessing.fit(one.image) for one in drawn])
            maps = model.features(normalise(torch.from_numpy(pixels), preprocessing))
            keys = model.keys(maps)
            alpha = torch.stack([model.attention(maps, c.unsqueeze(0), keys) for c in conditions])
            weights = alpha.transpose(0, 1).double().numpy()
            for place, (spec, one) in enumerate(zip(specs, drawn, strict=True)):
                labels = spec.garment.labels()
                for column, name in enumerate(names):
                    if labels[name]:  # without sleeves there is no shape of them to look at
                        cell = start + place, column
                        shares = attention_share(weights[place], one.masks[name])
                        inside[cell], area[cell] = shares[column], one.masks[name].mean()
                        if len(names) > 1:
                            others[cell] = np.delete(shares, column).mean()
            bar(len(indices))
    items = np.array([item_of(index)[0] for index in range(images)], dtype=np.int64)
    return attention_report(names, inside, area, others, items, seed)


def markdown(data: Data) -> str:
    """The figures as Markdown."""

    def cells(name: str, row: Data, others: str) -> list[str]:
        shares = [name, f"{row['inside']:.3f}", f"{row['area']:.3f}", f"{row['ratio']:.2f}"]
        return [*shares, "{:.2f} to {:.2f}".format(*row["ratio_ci"]), others]

    header = ["attention, rendered garments", "inside the region", "region's area (chance)"]
    header += ["times chance", "95 % interval", "inside under the other conditions"]
    rows = []
    for row in sorted(data["rows"], key=lambda r: not r["located"]):
        kind = "" if row["located"] else " (whole garment)"
        others = "-" if row["others"] is None else f"{row['others']:.3f}"
        rows.append(cells(row["attribute"] + kind, row, others))
    if data["located"] is not None:
        rows.append(cells("**mean over the located**", data["located"], ""))
    height, width = data["grid"]
    return table(
        header,
        rows,
        f"{data['images']} garments of a seed that the training did not see, attention of "
        f"{height} x {width} cells under each attribute's type condition. Located: the region "
        f"covers on average less than {data['located_below']:.0%} of the picture.",
    )


@dataclass(frozen=True, kw_only=True)
class Options(Bench):
    """Which model looks at how many pictures."""

    checkpoint: Annotated[Path, "The trained model."]
    images: Annotated[int, COUNT] = 500
    seed: Annotated[int, ANY_SEED] = SEED


@bench_command("attention", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Measure the attention mass inside each attribute's region, against the region's area."""
    loaded = load_checkpoint(options.checkpoint)
    model, report = loaded.model, measure(loaded, options.images, options.seed)
    rival = "" if model.architecture == "m2fashion" else f"-{model.architecture}"
    yield (
        f"attention-wardrobe-{model.config.backbone}{rival}",
        {
            "rows": [_rounded(asdict(row)) for row in report.rows],
            "located": None if report.located is None else _rounded(asdict(report.located)),
            "located_below": LOCATED_BELOW,
            "images": options.images,
            "seed": options.seed,
            "architecture": model.architecture,
            "backbone": model.config.backbone,
            "grid": list(model.grid),
            "checkpoint_hash": loaded.hash,
            "training": {name: loaded.training.get(name) for name in ("dataset", "seed", "epoch")},
        },
    )


def _rounded(figures: Data) -> Data:
    out = dict(figures)
    for name, figure in figures.items():
        if isinstance(figure, dict):  # an interval
            out[name] = [round(figure["low"], 4), round(figure["high"], 4)]
        elif isinstance(figure, float):
            out[name] = None if math.isnan(figure) else round(figure, 5)
    return out
