"""Writes the commit into a wheel, for `retrieve --version`; all else is in pyproject.toml."""

import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithCommit(build_py):
    """Build, then write the commit of the checkout, if it is one, beside the command line."""

    def run(self) -> None:
        """Build the packages."""
        super().run()
        command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "--short=12"]
        try:
            found = subprocess.run([*command, "HEAD"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return
        if not self.editable_mode:
            Path(self.build_lib, "retrieval", "commit").write_text(found.stdout)


setup(cmdclass={"build_py": WithCommit})
