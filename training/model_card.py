"""The model card that is written beside every checkpoint."""

from __future__ import annotations

from typing import Any

from training.models.conditioned import ConditionedEmbedder
from training.schema import normalise_name


def model_card(model: ConditionedEmbedder, training: dict[str, Any]) -> str:
    """Markdown: what the model is, how well it was trained (remarks on the run), how to load it."""
    config, grid = model.config, model.grid
    kind = "An image embedding conditioned on attribute labels"
    if not model.sees_values:
        kind = (
            "A model to compare M2Fashion with (`retrieve evaluate` measures it, it cannot be "
            "indexed): an image embedding"
        )
    lower = ", with the stages below it and the pixels" if config.lower_stages else ""
    parameters = sum(p.numel() for p in model.parameters())
    data, images, seed, epoch = (
        training.get(name, "?") for name in ("dataset", "images", "seed", "epoch")
    )
    figure = training.get("validation")
    measured = "" if figure is None else f"\n- validation MAP (type mode, all): {figure:.2f} %"
    rows = "\n".join(
        f"| {normalise_name(of.name)} ({len(of.values)}) | {', '.join(of.values[:12])}"
        f"{', ...' if len(of.values) > 12 else ''} |"
        for of in model.schema.attributes
    )
    return f"""---
library_name: m2fashion-retrieval
pipeline_tag: image-feature-extraction
---

# {model.title}

{kind} ({model.paper}), for attribute-specific fashion retrieval.

- backbone: {config.backbone} up to {config.stage}{lower}; {parameters:,} parameters in all
- embedding: {model.dim} numbers, from maps of {grid[0]} x {grid[1]} cells
- trained on: {data} ({images} images), seed {seed}, epoch {epoch}{measured}

| attribute | values |
|---|---|
{rows}

```python
from training.checkpoint import load_checkpoint

model = load_checkpoint(Path(".")).model
```

Limits: it knows the attributes and values above, as its training photographs show them. Predicted
labels are guesses; do not use them to describe people.
"""
