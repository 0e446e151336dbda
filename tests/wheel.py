"""Builds the wheel and works with it where there is nothing else: `make dist`.

It is installed into an empty environment with the pinned versions of its dependencies, and then
with the lowest that `pyproject.toml` allows. There pictures are drawn, indexed by a model that this
environment trained, and asked for, without torch; then with `[train]` a model is trained. Torch and
what it needs, by far the largest, are those of the environment that runs this.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
import venv
from concurrent.futures import ThreadPoolExecutor
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


def install(programs: Path, what: str, versions: Path) -> None:
    """Install the wheel, with extras, into an environment."""
    pip = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*pip, "install", "-q", "--no-compile", "-c", versions, what)


def megabytes(folder: Path) -> int:
    """What files below a folder take."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) // 10**6


class Shop:
    """Rendered garments and what is made of them, in an empty folder by one environment."""

    def __init__(self, programs: Path, folder: Path) -> None:
        folder.mkdir()
        self.programs, self.folder = programs, folder

    def retrieve(self, *words: object) -> str:
        """The command line."""
        programs, folder = self.programs, self.folder
        return run(programs / "python", "-P", programs / "retrieve", *words, cwd=folder)

    def train(self) -> Path:
        """Draw and train; the run."""
        self.retrieve("wardrobe", "shop", "--count", 120, "--size", 64)
        (self.folder / "small.toml").write_text(
            '[model]\nbackbone = "small"\ngrid = 4\ndim = 16\n[preprocessing]\nsize = 64\n'
            "[recipe]\nepochs = 1\nfreeze = 'none'\nfreeze_norm = false\n"
        )
        self.retrieve("train", "--dataset", "shop", "--config", "small.toml", "--out", "runs/shop")
        return self.folder / "runs/shop"

    def ask(self, run: Path) -> None:
        """Index the garments of another wardrobe and find ten."""
        self.retrieve("wardrobe", "other", "--count", 60, "--size", 64, "--seed", 1)
        self.retrieve("build-index", "--dataset", "other", "--checkpoint", run)
        pictures = sorted((self.folder / "other/images").glob("*.jpg"))
        self.retrieve("add", "indexes/other", pictures[1], "--labels", "pattern=floral")
        self.retrieve("remove", "indexes/other", pictures[2])
        found = json.loads(self.retrieve("query", pictures[0], "--attrs", "floral", "--json"))
        assert len(found["hits"]) == 10, found
        self.retrieve("verify")

    def serve(self) -> None:
        """Serve that index, and ask for the page and its schema, as the Dockerfile's image does."""
        words = ["-P", self.programs / "retrieve", "serve", "indexes/other", "--port", "0"]
        command = [str(word) for word in (self.programs / "python", *words)]
        process = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        told: list[str] = []

        def wait_for(sign: str) -> str:
            for line in iter(process.stderr.readline, ""):
                told.append(line)
                if sign in line:
                    return line
            raise EOFError(f"it ended without {sign!r}")

        try:
            url = wait_for("serving at ").partition("serving at ")[2].split()[0][:-1]
            wait_for('"ready"')
            for path in ("/", "/page/main.js", "/v1/schema", "/readyz"):
                with urllib.request.urlopen(url + path, timeout=60) as answer:
                    assert answer.status == 200
        except (EOFError, OSError) as error:
            process.terminate()
            sys.exit(f"{' '.join(command)}\n{error!r}\n{''.join(told)}{process.stderr.read()}")
        finally:
            process.terminate()
            process.wait(60)


def main() -> None:
    """Build, install and work, twice."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", place, ROOT)
        (wheel,) = place.glob("*.whl")
        assert project["version"] in wheel.name
        extras = project["optional-dependencies"]
        needed = lowest(project["dependencies"] + extras["serve"] + extras["train"])
        (place / "lowest.txt").write_text("\n".join(needed) + "\n")
        lay_torch(place / "torch", {one.split("==")[0] for one in needed})
        trained = Shop(Path(sys.executable).parent, place / "trained").train()

        def work(name: str, versions: Path) -> str:
            venv.create(place / name)
            (packages,) = (place / name).glob("lib/python*/site-packages")
            programs = place / name / "bin"
            install(programs, str(wheel), versions)
            size = megabytes(packages)
            assert not (packages / "torch").exists(), "a query needs no torch"
            shop = Shop(programs, place / f"work-{name}")
            shop.ask(trained)
            install(programs, f"{wheel}[serve]", versions)
            served = megabytes(packages)
            assert served < 450, "the image of the Dockerfile has at most 600 MB"
            shop.serve()
            (packages / "torch.pth").write_text(f"{place / 'torch'}\n")
            install(programs, f"{wheel}[train]", versions)
            shop.train()
            sizes = f"{size} MB without torch, {served} MB to serve"
            return f"{name}: {shop.retrieve('--version').strip()}, {sizes}"

        ways = {"pinned": ROOT / "constraints.txt", "lowest": place / "lowest.txt"}
        with ThreadPoolExecutor(len(ways)) as both:
            for line in both.map(work, ways, ways.values()):
                print(line)


if __name__ == "__main__":
    main()
