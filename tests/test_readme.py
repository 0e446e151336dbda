"""README and docs cannot rot: commands parse, Python runs, links lead somewhere, figures are the
results' own."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from benchmarks.insert_figures import TAGGING, diagrams, pages, with_figures
from retrieval.cli import cli

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in pages()}
README = PAGES["README.md"]


def _commands() -> list[str]:
    """Every line that starts with `retrieve` in a block of code."""
    lines = []
    for text in [*PAGES.values(), (ROOT / "CONTRIBUTING.md").read_text()]:
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        blocks.append("\n".join(re.findall(r"^    (.*)$", text, re.MULTILINE)))
        lines += [line for block in blocks for line in block.splitlines()]
    return sorted({line for line in lines if line.startswith("retrieve ")})


def test_the_readme_shows_commands_and_stays_short() -> None:
    assert len(re.findall("^ *retrieve ", README, re.MULTILINE)) >= 8
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("line", _commands())
def test_every_command_parses(line: str) -> None:
    words = shlex.split(line, comments=True)
    with click.Context(cli) as context:
        command = cli.get_command(context, words[1])
        assert command is not None, words[1]
        rest = words[2:]
        while isinstance(command, click.Group):
            command, rest = command.get_command(context, rest[0]), rest[1:]
            assert command is not None, line
        # Options and their types are checked here; nothing is run.
        command.make_context(line, rest, parent=context)


def _options(command: click.Command, context: click.Context) -> set[str]:
    """Every option of a command and of those below it."""
    found = {name for parameter in command.params for name in parameter.opts}
    found |= {name for parameter in command.params for name in parameter.secondary_opts}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            found |= _options(below, context)
    return found


def test_every_option_that_prose_names_exists() -> None:
    with click.Context(cli) as context:
        known = _options(cli, context)
    for page, text in PAGES.items():
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        for span in re.findall(r"`([^`]+)`", prose):
            if not span.startswith(("torchrun", "pip", "python", "pytest")):
                named = re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", span)
                assert set(named) <= known, f"{page}: {span}"


def test_the_python_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against an engine whose `query` takes exactly the real arguments."""
    import inspect

    from retrieval.engine import Engine
    from retrieval.hits import Hit
    from retrieval.request import Request

    real = inspect.signature(Engine.query)

    class Fake:
        def query(self, *arguments: Any, **options: Any) -> list[Hit]:
            real.bind(self, *arguments, **options)
            return [Hit(1, 0.5, 0.5, Path("a.jpg"), "a.jpg", 0, {}, {}, ())]

        def query_many(self, requests: list[Request]) -> list[list[Hit]]:
            return [[] for _ in requests]

        def encode(self, image: str) -> str:
            return image

    monkeypatch.setattr(Engine, "open", classmethod(lambda cls, folder: Fake()))
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_pictures_and_linked_files_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page]):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_figures_are_those_of_the_committed_results(page: str) -> None:
    """Each block between figure markers is (part of) the Markdown that a benchmark wrote."""
    text = PAGES[page]
    blocks = re.findall(r"<!-- (?:figures|table): (\S+) -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert len(blocks) == len(re.findall("<!-- (?:figures|table):", text))
    for name, block in blocks:
        files = sorted(RESULTS.glob(f"{name}.md"))
        written = "\n\n".join(path.read_text().strip() for path in files)
        assert block.strip() in written
        assert bool(block.strip()) == bool(written), f"{name}: python -m benchmarks.insert_figures"
    assert with_figures(text) == text, "python -m benchmarks.insert_figures"


@pytest.mark.parametrize("page", PAGES)
def test_no_table_of_figures_stands_without_its_command(page: str) -> None:
    command = re.compile(
        r"(?:`|^    |^)(retrieve [a-z]|make [a-z]|python -m benchmarks)", re.MULTILINE
    )
    for section in re.split(r"^#+ ", PAGES[page], flags=re.MULTILINE):
        if re.search(r"^\|.*\d\.\d.*\|$", section, re.MULTILINE):
            assert command.search(section), f"{page}: {section.splitlines()[0]}"


def test_figures_of_one_run_are_those_of_its_json() -> None:
    """Tables of many models are rendered in one place; what is rendered elsewhere is looked at."""
    for path in RESULTS.glob("demo-*.json"):
        data, text = json.loads(path.read_text()), path.with_suffix(".md").read_text()
        assert f"{data['map']:.2f}" in text


def test_diagrams_are_those_of_the_committed_results() -> None:
    for name, drawn in diagrams(TAGGING).items():
        found = (ROOT / "docs/images" / name).read_text()
        assert found == drawn, "python -m benchmarks.insert_figures"


def test_constants_that_docs_name_exist() -> None:
    from indexer.search import choose as index_choice
    from retrieval import query_vector
    from training import descriptor

    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", PAGES["docs/how-it-works.md"]))
    known = {name for module in (index_choice, query_vector, descriptor) for name in vars(module)}
    assert named
    assert named <= known, named - known


def test_blocks_take_the_whole_result_or_its_first_table(tmp_path: Path) -> None:
    (tmp_path / "a-1.md").write_text("# A\n\n| x |\n|---|\n| 1 |\n\nSaid.\n\n| y |\n|---|\n")
    (tmp_path / "a-2.md").write_text("Two.\n")
    page = "<!-- table: a-1 -->\nold\n<!-- end -->\n<!-- figures: a-* -->\n<!-- end -->\n"
    page += "<!-- figures: none -->\nold\n<!-- end -->\n"
    whole = (tmp_path / "a-1.md").read_text().strip()
    assert with_figures(page, tmp_path) == (
        "<!-- table: a-1 -->\n| x |\n|---|\n| 1 |\n<!-- end -->\n"
        f"<!-- figures: a-* -->\n{whole}\n\nTwo.\n<!-- end -->\n"
        "<!-- figures: none -->\n<!-- end -->\n"
    )
