"""`retrieve bench`: the commands behind the figures that the project quotes."""

from __future__ import annotations

import click

from retrieval.lazy_group import LazyGroup

COMMANDS = {
    "demo": ("benchmarks.demo", "The main job on rendered garments, from nothing."),
    "map": ("benchmarks.models.map", "MAP of M2Fashion and its rivals, side by side."),
    "table3": ("benchmarks.models.table3", "The paper's Table 3: MAP, system by system."),
    "ablations": ("benchmarks.models.ablations", "MAP of M2Fashion without each of its parts."),
    "counterfactual": ("benchmarks.counterfactual", "Finding a garment with one thing changed."),
    "likeness": ("benchmarks.likeness", "Which one, not only what it is: likeness and changes."),
    "table1": ("benchmarks.models.table1", "Predicting categories and attributes, side by side."),
    "table2": ("benchmarks.models.table2", "The paper's Table 2: joint learning and pooling."),
    "words": ("benchmarks.words", "Labels from titles, against the labels that are known."),
    "tagging": ("benchmarks.tagging", "How right predicted labels are, and finding wrong ones."),
    "labels": ("benchmarks.labels", "How much to label, and what to label next."),
    "attention": ("benchmarks.attention", "Attention mass inside the true region of a part."),
    "runtimes": ("benchmarks.runtimes", "What encodes how fast, and at what loss of MAP."),
    "busy": ("benchmarks.busy", "What work takes beside busy processes."),
    "speed": (
        "benchmarks.speed.command",
        "What requests cost, from a thousand images to millions.",
    ),
    "parts": ("benchmarks.parts", "What sharing the encoding of a gallery costs."),
    "service": ("benchmarks.service", "What serving costs, and what it withstands."),
    "held": ("benchmarks.held", "An index in PostgreSQL beside the same in its files."),
    "peers": ("benchmarks.peers.command", "This engine beside faiss and PostgreSQL with tags."),
}


@click.group("bench", cls=LazyGroup, lazy=COMMANDS)
def command() -> None:
    """Reproduce the figures that the project quotes."""
