"""Random argument vectors of the `retrieve` command, drawn from what its own commands declare."""

from __future__ import annotations

import random
from collections.abc import Iterator

import click

from retrieval.cli import COMMANDS, cli

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


def argument_vectors(first: int, last: int) -> Iterator[tuple[int, list[str]]]:
    """Numbers `first`..`last - 1` and the vector that each of them stands for."""
    for number in range(first, last):
        yield number, argument_vector(number)


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
