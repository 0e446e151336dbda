"""Fault 29: any argument vector, drawn from what the commands declare, in a long-lived process that
can change one folder alone and is replaced where it hangs or dies.

`python arguments.py FOLDER FIRST LAST` is that process; it prints a line of JSON a vector.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from small_gallery import SmallGallery, make_gallery

from retrieval.cli import COMMANDS, _run, cli

REPOSITORY = Path(__file__).resolve().parents[2]
CODES = {0, 2, 3, 4, 5, 6}
"""What a vector may end with."""

WORDS = (
    *("bare", "red", "colour:red", "barred", "colour", "Bar : Bare", "flral", "", ",", "-", "="),
    *("red,bare", "red,green", "a" * 300, "colour=red", "bar=bare", "trim=", "x=y=z", "[/]", "%s"),
    *("0", "1", "3", "-1", "nan", "1e-3", "1.5", "shop", "runs/shop", "indexes/shop", "indexes"),
    *("shop/images/000.png", "images/001.png", "shop/broken.jpg", "shop/labels.csv", "none.jpg"),
    *("test", "valid", "all", "type", "value", "cpu", "auto", "cuda:x", "out.png", "out.txt"),
    *(
        ".",
        "..",
        "/dev/null",
        "x/y/z",
        "--",
        "-h",
        "--json",
        "旗袍",
        "\n",
        "\udcff",
        "\0",
        "\x1b[2J",
    ),
)
"""What stands for a value, sensible or not. No number is so large that obeying it takes long."""

SENSIBLE = {
    "build-index": "--dataset shop --checkpoint runs/shop --out indexes/new --workers 0",
    "add": "indexes/shop shop/images/001.png",
    "remove": "indexes/shop images/001.png",
    "query": "shop/images/000.png --device cpu",
    "train": "--dataset shop --out runs/new --backbone small --stage layer3 --image-size 32 "
    "--epochs 1 --workers 0 --device cpu --batch-size 8",
    "evaluate": "--dataset shop --checkpoint runs/shop --workers 0 --device cpu",
    "inspect": "--dataset shop",
    "wardrobe": "garments --count 2 --size 32 --workers 0",
    "verify": "indexes/shop",
    "doctor": "",
}
"""Arguments that get far, by command. All other paths are relative: the folder is worked in."""

_SLOW = ("--workers", "--epochs", "--count", "--size", "--image-size", "--triplets-per-epoch")
"""Options whose values are drawn from few, so that no vector takes minutes."""


def argument_vector(number: int) -> list[str]:
    """A command and random options; mostly a sensible start, so that some get far."""
    draw = random.Random(number)
    names = list(COMMANDS)
    name = draw.choice(names)
    if draw.random() < 0.03:
        return [draw.choice(WORDS) for _ in range(draw.randint(0, 4))]
    if name == "bench":  # each takes minutes to hours: only what cannot start
        return ["bench", draw.choice((*WORDS, "map", "speed")), draw.choice(("-h", "--nope"))]
    with click.Context(cli) as context:
        command = cli.get_command(context, name)
    assert command is not None, name
    vector = SENSIBLE.get(name, "").split() if draw.random() < 0.75 else []
    if name in ("train", "wardrobe") and not vector:
        return [name, *(draw.choice(WORDS) for _ in range(2)), "--nope"]
    options = [p for p in command.params if isinstance(p, click.Option) and p.name != "help"]
    for _ in range(draw.randint(0, 4)):
        option = draw.choice(options)
        word = draw.choice(option.opts)
        kind = draw.random()
        if kind < 0.9:
            vector.append(word)
        if (kind < 0.8 and not option.is_flag) or kind > 0.95:
            vector.append(_value(option, draw))
    if draw.random() < 0.2:
        draw.shuffle(vector)
    return [name, *vector]


def _value(option: click.Option, draw: random.Random) -> str:
    if set(option.opts) & set(_SLOW):
        return draw.choice(("0", "1", "-1", "x", "", "nan", "1"))
    if isinstance(option.type, click.Choice) and draw.random() < 0.7:
        return str(draw.choice(list(option.type.choices)))
    return draw.choice(WORDS)


def argument_trials(folder: Path, first: int, trials: int, patience: float = 60.0) -> list[str]:
    """Run `retrieve` on vectors number `first` and on; what went wrong, empty where nothing did.

    Survived: it ends within `patience` seconds with 0 or the code of an expected error, without a
    traceback.
    """
    here = folder / "work" / "here"  # two folders deep, so that `..` stays inside
    gallery = make_gallery(here, 24)
    (gallery.shop / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (here / "runs").mkdir()
    gallery.model.rename(here / "runs" / "shop")
    (here / "model").symlink_to("runs/shop")
    SmallGallery(here).build(here / "indexes" / "shop")
    (folder / "home").mkdir()
    found: list[str] = []
    while len(found) < trials:
        found += map(_trouble, _answers(folder, first + len(found), first + trials, patience))
    return found


def _trouble(answer: dict[str, Any]) -> str:
    code, said = answer["code"], str(answer["said"])
    right = code in CODES and "Traceback" not in said and "internal error" not in said
    if right and (code == 0 or said):
        return ""
    return f"{argument_vector(answer['number'])!r}: {code} {said[-500:]}"


def _answers(folder: Path, first: int, last: int, patience: float) -> Iterator[dict[str, Any]]:
    """One answer a vector, until the process ends, hangs or has done all of them."""
    own = {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder), str(first), str(last)],
        env=os.environ | own | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()

    def pour() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put("")

    threading.Thread(target=pour, daemon=True).start()
    wait, said = 10 * patience, ""  # imports come first
    try:
        for number in range(first, last):
            while True:
                try:
                    line = lines.get(timeout=wait)
                except queue.Empty:
                    yield {"number": number, "code": -1, "said": f"hung for {patience:.0f} s"}
                    return
                if not line:
                    yield {"number": number, "code": -1, "said": f"the process ended: {said}"}
                    return
                if line.startswith('{"number"'):
                    break
                said += line
            wait = patience
            yield json.loads(line)
    finally:
        process.kill()
        process.wait()


_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink",
    "shutil.rmtree",
}  # fmt: skip


def confine(folder: Path) -> None:
    """Refuse, in this process and for good, to change anything outside of a folder."""
    inside = (str(folder), "/dev/", "/proc/self/")

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if not writes and event not in _CHANGES:
            return
        for path in arguments[:2] if event in _CHANGES else arguments[:1]:
            if isinstance(path, str | bytes | os.PathLike):
                where = os.path.abspath(os.fsdecode(path))
                if not where.startswith(inside):
                    raise PermissionError(13, "outside of the folder that is worked in", where)

    sys.addaudithook(heard)


def run_vector(vector: list[str]) -> dict[str, Any]:
    """Run the command line in this process: exit code, and what went to standard error."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = _run(vector, debug=False)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    err.flush()
    return {"code": code, "said": err.buffer.getvalue().decode("utf-8", "replace")}


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    os.chdir(folder / "work" / "here")
    confine(folder)
    tell = os.fdopen(os.dup(1), "w", buffering=1)
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        tell.write(json.dumps({"number": number} | run_vector(argument_vector(number))) + "\n")
