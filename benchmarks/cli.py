"""`retrieve bench`: the commands behind the figures that the project quotes."""

from __future__ import annotations

import click

from retrieval.lazy_group import LazyGroup

COMMANDS = {
    "demo": ("benchmarks.demo", "The main job on rendered garments, from nothing."),
    "main-job": ("benchmarks.main_job", "The main job on photographs, timed."),
    "queries": ("benchmarks.queries", "Check that queries return what they say."),
    "presence-weight": ("benchmarks.presence_weight", "Sweep the weight of named values."),
    "deepfashion-parse": ("benchmarks.deepfashion_parse", "Parse a DeepFashion of full size."),
}


@click.group("bench", cls=LazyGroup, lazy=COMMANDS)
def command() -> None:
    """Reproduce the figures that the project quotes."""
