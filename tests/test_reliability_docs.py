"""docs/reliability.md cannot rot: its figures are a run's, and every fault has its tests."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "reliability.md").read_text()


def test_whatever_was_injected_was_survived() -> None:
    """That the figures are those of the results is checked with all others: test_readme.py."""
    assert "<!-- figures: endurance-* -->" in TEXT
    for path in (ROOT / "benchmarks" / "results").glob("endurance-*.json"):
        for row in json.loads(path.read_text())["rows"]:
            assert row["survived"] == row["trials"], row


def test_every_fault_has_a_test_that_is_named_after_it() -> None:
    named: set[int] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        named |= {int(number) for number in re.findall(r"def test_fault_(\d\d)_", path.read_text())}
    assert sorted(named) == list(range(1, 36))
