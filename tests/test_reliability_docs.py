"""Every fault that docs/reliability.md promises something of has its tests."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_fault_has_a_test_that_is_named_after_it() -> None:
    named: set[int] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        named |= {int(number) for number in re.findall(r"def test_fault_(\d\d)_", path.read_text())}
    assert sorted(named) == list(range(1, 36))
