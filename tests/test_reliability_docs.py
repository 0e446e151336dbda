"""docs/reliability.md cannot rot: its figures are a run's, and every fault has its tests."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def test_figures_are_those_of_the_committed_results() -> None:
    ((name, table),) = re.findall(r"<!-- figures: (\S+) -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)
    found = sorted((ROOT / "benchmarks" / "results").glob(f"{name}-*.json"))
    if not found:
        assert not table.strip(), "figures come from `make endurance`"
        return
    assert table.strip() in [path.with_suffix(".md").read_text().strip() for path in found]
    for path in found:
        for row in json.loads(path.read_text())["rows"]:
            assert row["survived"] == row["trials"], row


def test_every_fault_has_a_test_that_is_named_after_it() -> None:
    named: set[int] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        named |= {int(number) for number in re.findall(r"def test_fault_(\d\d)_", path.read_text())}
    assert sorted(named) == list(range(1, 36))
