"""Put the figures of `benchmarks/results/` where the README and docs/ quote them.

    python -m benchmarks.insert_figures

Between `<!-- figures: NAME -->` and `<!-- end -->` stands all of `results/NAME.md`, between
`<!-- table: NAME -->` and `<!-- end -->` its first table. A `*` in NAME takes every result that
fits, in the order of their names. What has not been measured yet is left empty.

Between `<!-- diagram: NAME -->` and `<!-- end -->` in docs/ stand the reliability diagrams of
results of `bench tagging`, which are drawn to docs/images/.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.common import RESULTS
from benchmarks.tables.reliability import diagram, has_bins

ROOT = Path(__file__).resolve().parents[1]
TAGGING = "tagging-*"

_BLOCK = re.compile(r"(<!-- (figures|table|diagram): (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def pages(root: Path = ROOT) -> list[Path]:
    """The files that quote figures: the README and docs/*.md."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def with_figures(text: str, results: Path = RESULTS) -> str:
    """A page's text with the figures of a folder of results between its markers."""

    def block(found: re.Match[str]) -> str:
        if found[2] == "diagram":
            names = diagrams(found[3], results)
            lines = [
                f"![{name}: chances, and how often they are right](images/{name})\n"
                for name in names
            ]
            return found[1] + "".join(lines) + found[5]
        texts = [path.read_text().strip() for path in sorted(results.glob(f"{found[3]}.md"))]
        if found[2] == "table":
            texts = [first_table(one) for one in texts]
        return found[1] + ("\n\n".join(texts) + "\n" if any(texts) else "") + found[5]

    return _BLOCK.sub(block, text)


def diagrams(pattern: str, results: Path = RESULTS) -> dict[str, str]:
    """File names and SVG of the reliability diagrams of the results that fit a pattern and have
    what they are drawn of."""
    found = {p.stem: json.loads(p.read_text()) for p in sorted(results.glob(f"{pattern}.json"))}
    return {f"{stem}.svg": diagram(data) for stem, data in found.items() if has_bins(data)}


def first_table(markdown: str) -> str:
    """The first table of a Markdown text; empty if there is none."""
    found = re.search(r"(^\|.*\n?)+", markdown, re.MULTILINE)
    return found[0].rstrip() if found else ""


def main() -> None:
    """Bring every page up to date; say which have changed."""
    for name, drawn in diagrams(TAGGING).items():
        (ROOT / "docs" / "images" / name).write_text(drawn)
    for path in pages():
        before = path.read_text()
        after = with_figures(before)
        if after != before:
            path.write_text(after)
            print(f"figures of {path.relative_to(ROOT)} brought up to date")


if __name__ == "__main__":
    main()
