"""The model card that is written beside every checkpoint."""

from __future__ import annotations

from typing import Any

from training.models.conditioned import ConditionedEmbedder
from training.schema import normalise_name


def model_card(model: ConditionedEmbedder, training: dict[str, Any]) -> str:
    """Markdown: what the model is, how well it was trained (remarks on the run), how to load it."""
    parameters = sum(p.numel() for p in model.parameters())
    lines = [
        "---",
        "library_name: m2fashion-retrieval",
        "pipeline_tag: image-feature-extraction",
        "---",
        "",
        f"# {model.title}",
        "",
        f"{_kind(model)} ({model.paper}), for attribute-specific fashion retrieval.",
        "",
        f"- backbone: {model.config.backbone} up to {model.config.stage}"
        f"{', with the stages below it and the pixels' if model.config.lower_stages else ''}; "
        f"{parameters:,} parameters in all",
        f"- embedding: {model.dim} numbers, from maps of {model.grid[0]} x {model.grid[1]} cells",
        f"- trained on: {training.get('dataset', 'unknown')} "
        f"({training.get('images', '?')} images), seed {training.get('seed', '?')}, "
        f"epoch {training.get('epoch', '?')}",
    ]
    if training.get("validation") is not None:
        lines.append(
            f"- validation MAP (type mode, all attributes): {training['validation']:.2f} %"
        )
    lines += ["", "| attribute | values |", "|---|---|"]
    for attribute in model.schema.attributes:
        shown = ", ".join(attribute.values[:12]) + (", ..." if len(attribute.values) > 12 else "")
        lines.append(f"| {normalise_name(attribute.name)} ({len(attribute.values)}) | {shown} |")
    lines += [
        "",
        "```python",
        "from pathlib import Path",
        "from training.checkpoint import load_checkpoint",
        "",
        'model = load_checkpoint(Path(".")).model',
        "```",
        "",
        "Limits: it knows the attributes and values above, as its training photographs show them. "
        "Predicted labels are guesses; do not use them to describe people.",
        "",
    ]
    return "\n".join(lines)


def _kind(model: ConditionedEmbedder) -> str:
    if model.sees_values:
        return "An image embedding conditioned on attribute labels"
    return (
        "A model to compare M2Fashion with (`retrieve evaluate` measures it, it cannot be "
        "indexed): an image embedding"
    )
