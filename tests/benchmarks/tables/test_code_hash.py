"""What of source code counts."""

from pathlib import Path

import pytest

from benchmarks.tables.keys import code_hash

CODE = '''"""What it is."""
import math

def f(x):
    """Half of it."""
    return x / 2  # why
'''


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (CODE.replace("# why", "# because"), True),
        (CODE.replace("Half of it.", "x, halved."), True),
        (CODE.replace('    """Half of it."""\n', ""), True),
        (CODE.replace("x / 2", "(\n        x / 2\n    )"), True),
        (CODE.replace("x / 2", "x / 3"), False),
        (CODE.replace("(x)", "(x=1)"), False),
        (CODE + "\nf = math.sqrt\n", False),
    ],
)
def test_code_counts_as_what_runs(tmp_path: Path, text: str, same: bool) -> None:
    hashes = []
    for content in (CODE, text):
        (tmp_path / "part").mkdir(exist_ok=True)
        (tmp_path / "part" / "f.py").write_text(content)
        (tmp_path / "README.md").write_text(content)
        hashes.append(code_hash(tmp_path, "part/**/*.py"))
    assert (hashes[0] == hashes[1]) is same


def test_only_the_files_that_matter_count(tmp_path: Path) -> None:
    for name in ("a.py", "deep/b.py", "left/c.py"):
        path = tmp_path / "part" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")

    def found() -> str:
        return code_hash(tmp_path, "part/*.py", "part/deep/*.py")

    before = found()
    (tmp_path / "part" / "left" / "c.py").write_text("x = 2\n")
    (tmp_path / "other.py").write_text("x = 2\n")
    assert found() == before
    (tmp_path / "part" / "deep" / "b.py").write_text("x = 2\n")
    changed = found()
    (tmp_path / "part" / "new.py").write_text("x = 1\n")
    assert len({before, changed, found()}) == 3
