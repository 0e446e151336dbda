"""What training, builds and queries take beside processes that keep a core each busy.

    retrieve bench busy

Draws a small wardrobe and trains on stored maps, builds an index and asks it, each beside none, one
and two such processes in turns, so that whatever else the machine does meets all of them. Fair
shares of two cores are 1.5 and 2 times the time alone, of one core 2 and 3 times; where threads
wait for each other after every operation, more. Training is also run with idle threads spinning for
as long as libgomp's do by default, not as `training.threads` has them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import click

from benchmarks.common import (
    Bench,
    Data,
    Result,
    bench_command,
    retrieve,
    table,
    vector_instructions,
)
from retrieval.options import COUNT
from training.errors import ResourceError
from training.threads import cores, threads

LOADS = (0, 1, 2)
"""Processes that keep a core busy."""

SPINNING = {"GOMP_SPINCOUNT": "300000"}
"""What libgomp takes where neither this nor OMP_WAIT_POLICY is set, which it goes before."""

_BURN = """
import os, sys
print(flush=True)
while os.getppid() == int(sys.argv[1]):  # not when whoever measured is gone
    for _ in range(1_000_000): pass
"""


@contextmanager
def burning(count: int) -> Iterator[None]:
    """So many processes that each keep a core busy, until the block is left, in whatever way."""
    burners: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            words = [sys.executable, "-c", _BURN, str(os.getpid())]
            burners.append(subprocess.Popen(words, stdout=subprocess.PIPE))
        for burner in burners:
            assert burner.stdout is not None
            burner.stdout.readline()  # it burns
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.communicate()


def to_rows(measured: Mapping[str, Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    """Rows of each job's seconds, a list a round, in the order of `LOADS`: medians of the rounds,
    and of the ratios to the time alone in the same round."""
    return [
        {
            "job": job,
            "busy": load,
            "seconds": round(statistics.median(one[place] for one in rounds), 4),
            "ratio": round(statistics.median(one[place] / one[0] for one in rounds), 3),
        }
        for job, rounds in measured.items()
        for place, load in enumerate(LOADS)
    ]


def markdown(data: Data) -> str:
    """The figures as Markdown."""
    cells = defaultdict(list)
    for row in data["rows"]:
        times = f" ({row['ratio']:.2f})" if row["busy"] else ""
        cells[row["job"]].append(f"{row['seconds']:.3g}{times}")
    header = ["seconds (times those alone)", "alone", "beside one busy process", "beside two"]
    return table(
        header,
        [[job, *times] for job, times in cells.items()],
        f"{data['threads']} threads on {data['machine']}, {data['backbone']} at {data['size']} px, "
        f"{data['train']} pictures to train on, {data['gallery']} to build from; medians of "
        f"{data['rounds']} rounds in turns, of epochs and queries of the median one but the first. "
        "Spinning: idle threads of OpenMP do so for long, as by default, before they sleep.",
    )


@dataclass(frozen=True, kw_only=True)
class Options(Bench):
    """What is trained and asked, and how often."""

    dataset: Annotated[str | None, "A name or folder [default: a wardrobe is drawn]."] = None
    weights: Annotated[Path | None, "Of the backbone [default: random ones]."] = None
    images: Annotated[int, click.IntRange(min=40), "Drawn; a third of them are built from."] = 300
    size: Annotated[int, click.IntRange(min=32), "Pixels a side."] = 224
    backbone: Annotated[str, "To layer3."] = "resnet18"
    epochs: Annotated[int, click.IntRange(min=2)] = 6
    queries: Annotated[int, COUNT] = 30
    rounds: Annotated[int, COUNT] = 2


@dataclass(frozen=True)
class Jobs:
    """What is timed, each as a user starts it; new folders are made in `work`."""

    options: Options
    source: str  # name or folder of a dataset
    weights: Path
    work: Path

    def train(self, out: str, epochs: int, environment: Mapping[str, str]) -> Data:
        """The report of `retrieve train` on maps, which are stored if they are not."""
        options, config = self.options, self.work / "run.toml"
        config.write_text("recipe = { copies = 0 }\n")  # a sixth of the maps, the same steps
        words = ["--dataset", self.source, "--config", config, "--weights", self.weights]
        words += ["--backbone", options.backbone, "--image-size", options.size, "--epochs", epochs]
        words += ["--workers", options.workers, "--device", "cpu", "--json"]
        return _report("train", *words, "--out", self.work / out, environment=environment)

    def epoch(self, out: str, environment: Mapping[str, str] = MappingProxyType({})) -> float:
        """Seconds of the median epoch but the first."""
        epochs = self.train(out, self.options.epochs, environment)["epochs"]
        return float(statistics.median(epoch["seconds"] for epoch in epochs[1:]))

    def build(self, index: str, limit: int) -> float:
        """Seconds that an index of the first pictures takes, by the model in `maps`."""
        words = ["--dataset", self.source, "--checkpoint", self.work / "maps", "--limit", limit]
        words += ["--device", "cpu", "--json", "--out", self.work / index]
        return float(_report("build-index", *words)["seconds"])

    def query(self, index: str, pictures: Sequence[Path]) -> float:
        """Seconds of the median query of a process that has answered one already; raises
        ResourceError if it fails."""
        words = [sys.executable, "-m", "benchmarks.busy", self.work / index, *pictures]
        done = subprocess.run(list(map(str, words)), check=False, capture_output=True, text=True)
        if done.returncode:
            raise ResourceError(f"a measured process failed: {done.stderr.strip()[-500:]}")
        return float(statistics.median(json.loads(done.stdout)))


def _report(*words: Any, environment: Mapping[str, str] = MappingProxyType({})) -> Data:
    report: Data = json.loads(retrieve(*words, capture=True, environment=environment))
    return report


def _random_weights(backbone: str, path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    from training.models.backbones import build_backbone

    torch.manual_seed(0)
    save_file(build_backbone(backbone, "layer3").state_dict(), path)
    return path


@bench_command("busy", markdown, Options)
def command(options: Options) -> Iterator[Result]:
    """Time training, building and queries beside 0, 1 and 2 busy processes."""
    from training import load_dataset

    with tempfile.TemporaryDirectory(prefix="busy-") as folder:
        source = options.dataset or f"{folder}/wardrobe"
        if options.dataset is None:
            drawn = ["--count", options.images, "--size", options.size]
            retrieve("wardrobe", source, *drawn, "--workers", threads(), capture=True)
        random = Path(folder, "random.safetensors")
        weights = options.weights or _random_weights(options.backbone, random)
        jobs = Jobs(options, source, weights, Path(folder))
        images = jobs.train("maps", 1, {})["images"]
        dataset = load_dataset(source)
        gallery = [dataset.root / path for path in dataset.paths[: options.images // 3]]
        pictures = list(islice(cycle(gallery), options.queries))
        rounds: dict[str, list[list[float]]] = defaultdict(list)
        for turn in range(1, options.rounds + 1):
            loads: dict[str, list[float]] = defaultdict(list)
            for load in LOADS:
                own = f"{turn}-{load}"
                with burning(load):
                    loads["epoch of training"].append(jobs.epoch(f"run-{own}"))
                    loads["the same, spinning"].append(jobs.epoch(f"spun-{own}", SPINNING))
                    loads["build"].append(jobs.build(f"index-{own}", len(gallery)))
                    loads["query"].append(jobs.query(f"index-{own}", pictures))
            for job, seconds in loads.items():
                rounds[job].append(seconds)
            yield (
                f"busy-cpu-{cores()}-cores-{vector_instructions().casefold()}",
                {
                    "rows": to_rows(rounds),
                    "rounds": turn,
                    "threads": threads(),
                    "backbone": options.backbone,
                    "size": options.size,
                    "train": images,
                    "gallery": len(gallery),
                    "epochs": options.epochs,
                    "queries": options.queries,
                },
            )


def _answer(index: str, pictures: Sequence[str]) -> list[float]:
    """Seconds of a query by each picture, in a process that has answered one."""
    from retrieval import Engine, Request

    engine = Engine.open(index, "cpu")
    spent = []
    for picture in (pictures[0], *pictures):
        started = time.perf_counter()
        engine.query(Request(Path(picture)))
        spent.append(time.perf_counter() - started)
    return spent[1:]


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1], sys.argv[2:])))
