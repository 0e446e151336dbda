"""The Dockerfile, as far as it can be tried without a daemon; `make dist` runs its installation."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from retrieval.cli import cli

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def test_the_linter_has_no_complaint() -> None:
    beside = Path(sys.executable).parent  # where pip puts it
    linter = shutil.which("hadolint", path=beside) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("no hadolint")
    done = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_is_there_and_is_all_that_is_built() -> None:
    copied = [line.split()[1:-1] for line in LINES if re.match("COPY (?!--)", line)]
    names = [name for words in copied for name in words]
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in let_in
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = [p.parent.name for p in ROOT.glob("*/__init__.py") if p.parent.name != "tests"]
    built = [p for p in packages if any(fnmatch.fnmatch(p, pattern) for pattern in patterns)]
    assert sorted(built) == sorted(name for name in names if (ROOT / name).is_dir())


def test_what_it_starts_is_a_command() -> None:
    words = [
        word
        for line in LINES
        if line.startswith(("ENTRYPOINT", "CMD"))
        for word in json.loads(line.partition(" ")[2])
    ]
    assert words[0] == "retrieve"
    with click.Context(cli) as context:
        command = cli.get_command(context, words[1])
        assert command is not None
        command.make_context("serve", words[2:], parent=context)
