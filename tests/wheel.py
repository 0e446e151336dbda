"""Builds the wheel and works with it where there is nothing else: `make dist`.

It is installed into an empty environment with the pinned versions of its dependencies, and then
with the lowest that `pyproject.toml` allows. Torch and what it needs, by far the largest, are those
of the environment that runs this. Each time pictures are drawn, a model trained, an index built and
asked, in an empty folder.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ("torch", "torchvision")


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


def lay_torch(folder: Path, own: set[str]) -> None:
    """Links to torch, torchvision and what they alone need, of this environment."""
    folder.mkdir()
    wanted, seen = list(SHARED), set(own)
    while wanted:
        name = wanted.pop()
        if (name := re.sub(r"[-_.]+", "-", name).lower()) in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform, or an extra
            continue
        wanted += [one[0] for need in found.requires or () if (one := re.match(r"[\w.-]+", need))]
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))


def environment(folder: Path, wheel: Path, versions: Path, torch: Path) -> Path:
    """A new environment with the wheel and torch; its `bin`."""
    venv.create(folder, with_pip=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "torch.pth").write_text(f"{torch}\n")
    run(
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "-q",
        "--no-compile",
        "-c",
        versions,
        f"{wheel}[cpu]",
    )
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
        needed = lowest(project["dependencies"] + project["optional-dependencies"]["cpu"])
        (place / "lowest.txt").write_text("\n".join(needed) + "\n")
        lay_torch(place / "torch", {one.split("==")[0] for one in needed})
        for name, versions in (
            ("pinned", ROOT / "constraints.txt"),
            ("lowest", place / "lowest.txt"),
        ):
            programs = environment(place / name, wheel, versions, place / "torch")
            print(f"{name}: {work(programs, place / f'work-{name}')}")


if __name__ == "__main__":
    main()
