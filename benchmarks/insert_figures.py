"""Put the figures of `benchmarks/results/` where the README and docs/ quote them.

    python -m benchmarks.insert_figures

Between `<!-- figures: NAME -->` and `<!-- end -->` stands all of `results/NAME.md`, between
`<!-- table: NAME -->` and `<!-- end -->` its first table. A `*` in NAME takes every result that
fits, in the order of their names. What has not been measured yet is left empty.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.write_results import RESULTS

ROOT = Path(__file__).resolve().parents[1]

_BLOCK = re.compile(r"(<!-- (figures|table): (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def pages(root: Path = ROOT) -> list[Path]:
    """The files that quote figures: the README and docs/*.md."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def with_figures(text: str, results: Path = RESULTS) -> str:
    """A page's text with what stands between its markers replaced by the figures of today.

    Args:
        text: of the page.
        results: folder of the results' Markdown.
    """

    def block(found: re.Match[str]) -> str:
        files = sorted(results.glob(f"{found[3]}.md"))
        texts = [path.read_text().strip() for path in files]
        if found[2] == "table":
            texts = [first_table(one) for one in texts]
        inner = "\n\n".join(texts)
        return found[1] + (inner + "\n" if inner else "") + found[5]

    return _BLOCK.sub(block, text)


def first_table(markdown: str) -> str:
    """The first table of a Markdown text; empty if there is none."""
    lines: list[str] = []
    for line in markdown.splitlines():
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            break
    return "\n".join(lines)


def main() -> None:
    """Bring every page up to date; say which have changed."""
    for path in pages():
        before = path.read_text()
        after = with_figures(before)
        if after != before:
            path.write_text(after)
            print(f"figures of {path.relative_to(ROOT)} brought up to date")


if __name__ == "__main__":
    main()
