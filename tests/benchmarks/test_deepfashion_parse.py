"""The generator of the parsing benchmark writes what the adapter reads."""

import json

from click.testing import CliRunner

from benchmarks.deepfashion_parse import command


def test_a_small_run_counts_right() -> None:
    result = CliRunner().invoke(command, ["--images", "120"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)
    assert (figures["images"], figures["values"], figures["correct"]) == (120, 1000, True)
    assert figures["present"] > 100
