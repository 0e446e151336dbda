"""What a change of the code's shape must not change: `python tests/golden.py RECORD`.

Draws garments, trains on them, indexes 600 others and asks 50 requests, all with one thread and
fixed seeds, through the commands. The first run writes RECORD; each later one compares with it, on
the same machine (other machines round otherwise), and fails where ids, scores, MAP, losses or the
arrays of the index differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import h5py
import numpy as np

from retrieval import Engine, Request


def retrieve(*arguments: object) -> str:
    """Run a command of this checkout and give what it prints."""
    command = [sys.executable, "-m", "retrieval.cli", *map(str, arguments)]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[2:])}\n{done.stdout}{done.stderr}")
    return done.stdout


def arrays(index: Path) -> str:
    """SHA-256 over the names and bytes of every array of an index's files."""
    digest = hashlib.sha256()
    for path in sorted(index.rglob("*.h5")):
        with h5py.File(path) as file:
            found: list[tuple[str, Any]] = []
            file.visititems(lambda name, item, found=found: found.append((name, item)))
            for name, item in sorted(found):
                if isinstance(item, h5py.Dataset):
                    value = np.asarray(item[()])
                    digest.update(f"{name} {value.dtype} {value.shape}".encode())
                    digest.update(
                        value.tobytes() if value.dtype != object else repr(value).encode()
                    )
    return digest.hexdigest()


def requests(pictures: list[Path], values: list[str]) -> list[Request]:
    """Fifty: likeness, one value, two, unwanted ones, an attribute, filters, a page."""
    one, two = values[:2]
    forms: list[dict[str, Any]] = [
        {},
        {"present": [one]},
        {"present": [one, two]},
        {"absent": [two]},
        {"present": [one], "absent": [two], "keep": 0.3},
        {"like": [one.split(":")[0]]},
        {"where": {one.split(":")[0]: one.split(":")[1]}},
        {"present": [two], "trust_labels": True},
        {"present": [two], "offset": 3, "top_k": 5},
        {"one_per_item": True, "include_query": True},
    ]
    return [Request(pictures[n], **forms[n % len(forms)]) for n in range(50)]


def measure(work: Path) -> dict[str, Any]:
    """All that is compared."""
    train, gallery, run, index = (work / n for n in ("train", "gallery", "run", "index"))
    retrieve("wardrobe", train, "--count", 400, "--seed", 5, "--size", 64)
    retrieve("wardrobe", gallery, "--count", 600, "--seed", 6, "--size", 64)
    config = work / "config.toml"
    config.write_text(
        '[model]\nbackbone = "small"\nstage = "layer3"\ngrid = 4\ndim = 32\nlower_stages = false\n'
        '[preprocessing]\nsize = 64\nmode = "stretch"\n'
        "[recipe]\nepochs = 3\nfreeze = 'none'\nfreeze_norm = false\n"
    )
    options = ["--config", config, "--workers", 0, "--device", "cpu"]
    retrieve("train", "--dataset", train, *options, "--out", run)
    garments = ["--dataset", gallery, "--checkpoint", run]
    retrieve("build-index", *garments, "--out", index, "--workers", 0, "--device", "cpu")
    evaluated = json.loads(
        retrieve("evaluate", *garments, "--split", "all", "--json", "--workers", 0, "--out", work)
    )
    engine = Engine.open(index, device="cpu")
    values = [f"{one.name}:{one.values[1]}" for one in engine.schema.attributes[:2]]
    pictures = sorted(gallery.rglob("*.jpg")) or sorted(gallery.rglob("*.png"))
    answers = engine.query_many(requests(pictures, values))
    return {
        "index": arrays(index),
        "hits": [[(str(hit.path), round(hit.score, 6)) for hit in answer] for answer in answers],
        "evaluated": evaluated,
    }


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Where two records differ; MAP (in percent) by more than 0.01, else at all."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted(before.keys() | after.keys())
            for line in differences(before.get(key), after.get(key), f"{where}/{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for n, (a, b) in pairs for line in differences(a, b, f"{where}/{n}")]
    if isinstance(before, float) and isinstance(after, float):
        bound = 0.01 if re.search("map", where) else 1e-6
        return [] if abs(before - after) <= bound else [f"{where}: {before} is {after} now"]
    return [] if before == after else [f"{where}: {before!r} is {after!r} now"]


def main(record: Path) -> None:
    """Write the record, or compare with it."""
    with tempfile.TemporaryDirectory() as folder:
        found = json.loads(json.dumps(measure(Path(folder))).replace(folder, "WORK"))
    if not record.exists():
        record.write_text(json.dumps(found))
        print(f"written: {record}")
        return
    lines = differences(json.loads(record.read_text()), found)
    if lines:
        sys.exit("\n".join(lines[:50]))
    print("equal")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
