"""Builds the wheel and works with it where there is nothing else: `make dist`.

It is installed into an empty environment with the pinned versions of its dependencies, and then
with the lowest that `pyproject.toml` allows (torch, by far the largest, is the same in both). Each
time pictures are drawn, a model trained, an index built and asked, in an empty folder.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("torch", "torchvision")  # hundreds of megabytes: one version, laid under both


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a command; what it printed, or an end with what it said."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def lowest(dependencies: list[str]) -> list[str]:
    """`name==version` of each lowest version that is allowed."""
    found = [re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", one) for one in dependencies]
    assert all(found), "each dependency says its lowest version"
    return [f"{one[1]}=={one[2]}" for one in found if one and one[1] not in SHARED]


def environment(folder: Path, wheel: Path, versions: Path, under: Path | None = None) -> Path:
    """A new environment with the wheel, over the packages of `under`; its `bin`."""
    venv.create(folder, with_pip=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    if under is not None:
        (lower,) = under.glob("lib/python*/site-packages")
        (packages / "under.pth").write_text(f"{lower}\n")
    install = [folder / "bin/python", "-m", "pip", "install", "-q"]
    if under is None:
        run(*install, "-c", versions, f"{wheel}[cpu]")
    else:
        run(*install, "--ignore-installed", "-r", versions)
        run(*install, "--ignore-installed", "--no-deps", wheel)
    return folder / "bin"


def work(programs: Path, folder: Path) -> str:
    """The main job in an empty folder; what `retrieve --version` says."""
    folder.mkdir()

    def retrieve(*words: object) -> str:
        return run(programs / "python", "-P", programs / "retrieve", *words, cwd=folder)

    retrieve("wardrobe", "shop", "--count", 120, "--size", 64)
    (folder / "small.toml").write_text(
        '[model]\nbackbone = "small"\ngrid = 4\ndim = 16\n[preprocessing]\nsize = 64\n'
        "[recipe]\nepochs = 1\nfreeze_backbone = false\nfreeze_norm = false\n"
    )
    retrieve("train", "--dataset", "shop", "--config", "small.toml", "--out", "runs/shop")
    retrieve("build-index", "--dataset", "shop")
    picture = sorted((folder / "shop/images").glob("*.jpg"))[0]
    found = json.loads(retrieve("query", picture, "--attrs", "floral", "--json"))
    assert len(found["hits"]) == 10, found
    retrieve("verify")
    return retrieve("--version").strip()


def main() -> None:
    """Build, install and work, twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", place, ROOT)
        (wheel,) = place.glob("*.whl")
        assert project["version"] in wheel.name
        pinned = environment(place / "pinned", wheel, ROOT / "constraints.txt")
        print(f"pinned: {work(pinned, place / 'one')}")
        needed = project["dependencies"] + project["optional-dependencies"]["cpu"]
        versions = place / "lowest.txt"
        versions.write_text("\n".join(lowest(needed)) + "\n")
        low = environment(place / "lowest", wheel, versions, place / "pinned")
        print(f"lowest: {work(low, place / 'two')}")


if __name__ == "__main__":
    main()
