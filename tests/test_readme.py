"""The README cannot rot: its commands parse, its Python runs, its figures are the results' own."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from retrieval.cli import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def _blocks(marker: str, language: str) -> list[str]:
    return re.findall(rf"<!-- test: {marker} -->\n```{language}\n(.*?)```", README, re.DOTALL)


def _commands() -> list[str]:
    blocks = _blocks("commands", "bash")
    assert len(blocks) >= 2
    shown = re.findall(r"^(?:    )?(retrieve .*)$", README, re.MULTILINE)
    assert len(shown) >= 2
    return [line for block in blocks for line in block.splitlines() if line] + shown


@pytest.mark.parametrize("line", _commands())
def test_every_command_parses(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "retrieve"
    with click.Context(cli) as context:
        command = cli.get_command(context, words[1])
        assert command is not None, words[1]
        rest = words[2:]
        while isinstance(command, click.Group):
            command, rest = command.get_command(context, rest[0]), rest[1:]
            assert command is not None, line
        # Options and their types are checked here; nothing is run.
        command.make_context(line, rest, parent=context)


def test_the_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against an engine whose `query` takes exactly the real arguments."""
    import inspect

    from retrieval.engine import Engine
    from retrieval.hits import Hit

    real = inspect.signature(Engine.query)

    class Fake:
        def query(self, *arguments: Any, **options: Any) -> list[Hit]:
            real.bind(self, *arguments, **options)
            return [Hit(1, 0.5, 0.5, Path("a.jpg"), 0, {}, {}, ())]

    monkeypatch.setattr(Engine, "open", classmethod(lambda cls, folder: Fake()))
    (code,) = _blocks("python", "python")
    exec(compile(code, "README.md", "exec"), {})


def test_pictures_and_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_figures_are_those_of_the_committed_results() -> None:
    """Each block between figure markers is (part of) the Markdown that a benchmark wrote."""
    blocks = re.findall(r"<!-- figures: (\S+) -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert blocks
    for name, text in blocks:
        results = ROOT / "benchmarks" / "results"
        assert text.strip() in (results / f"{name}.md").read_text()
        data = json.loads((results / f"{name}.json").read_text())
        if "rows" in data:  # a table of many models: means over seeds, rendered in one place
            continue
        figures = [data["all"]["map"]] if "all" in data else [data.get("map")]
        if name.startswith("queries-"):
            figures = [
                found[kind]["precision_at_10"]
                for found in data.get("attrs", data).values()
                for kind in ("same", "but")
            ]
        assert all(f"{figure:.2f}" in text for figure in figures)
