"""The `retrieve` command as a whole: start-up, errors to exit codes, any argument vector."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import click
import pytest
from small_index import ODD_NAMES, Shop, run

from retrieval import cli
from retrieval.console import printable
from training import errors

REPOSITORY = Path(__file__).resolve().parents[2]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom retrieval.cli import _run\n"
        "assert _run(['--help'], False) == 0\n"
        "assert _run(['query', '--help'], False) == 0\n"
        "assert _run(['train', '-h'], False) == 0\n"
        "assert _run(['evaluate', '-h'], False) == 0\n"
        "assert _run(['inspect', '-h'], False) == 0\n"
        "assert _run(['build-index', '-h'], False) == 0\n"
        "assert _run(['query', 'none.jpg', '--index', 'x'], False) == 3\n"
        "heavy = {'torch', 'torchvision', 'faiss', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    for name in cli.COMMANDS:
        assert name in done.stdout


def test_the_version() -> None:
    done = python("import retrieval.cli; retrieval.cli.main()", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("retrieve, version ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["qurey"], "unknown command 'qurey'; nearest: query"),
        (["index"], "nearest: merge-index, build-index"),
        (["xyz"], "build-index, merge-index, add, remove, export, query, names, train"),
        (["Query"], "nearest: query"),
        ([], "Commands:"),
        (["--nope"], "--nope"),
        (["--", "quiz"], "nearest: query"),
        ([""], "unknown command ''"),
        (["query"], "IMAGE"),
        (["evaluate"], "--dataset"),
        (["query", "a\0.png"], "holds a NUL"),
        (["build-index", "--dataset", "shop", "--out", "\0"], "holds a NUL"),
    ],
)
def test_wrong_commands_end_with_2(capsys, arguments: list[str], words: str) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in out + err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (errors.UsageError("a"), 2, "retrieve: a\n"),
        (errors.DataError("[red]b[/]"), 3, "retrieve: [red]b[/]\n"),
        (errors.CorruptStoreError("c"), 4, "retrieve: c\n"),
        (errors.LockedError("d"), 5, "retrieve: d\n"),
        (errors.ResourceError("e\x1b[2J\udcff"), 6, "retrieve: e\\x1b[2J\\udcff\n"),
        (MemoryError("f"), 6, "out of memory f"),
        (OSError(28, "No space left on device", "g"), 6, "No space left on device: 'g'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.exceptions.Abort(), 130, "interrupted"),
        (click.UsageError("h"), 2, "h"),
        (ZeroDivisionError("i"), 1, "internal error: ZeroDivisionError: i"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_become_exit_codes(capsys, monkeypatch, error, code, words, debug: bool) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "invoke", fail)
    assert cli._run(["inspect"], debug) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    shown = isinstance(error, errors.RetrieveError | OSError | MemoryError | ZeroDivisionError)
    assert ("Traceback" in captured.err) == (debug and shown)


def test_the_exit_code_of_a_terminated_command_is_kept(monkeypatch) -> None:
    def terminated(*_: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(cli.cli, "invoke", terminated)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["inspect"])
    assert stopped.value.code == 143


def test_debug_is_an_option_of_the_whole_only(capsys) -> None:
    for arguments, shown in (
        (["--debug", "query", "none.jpg", "--index", "x"], True),
        (["query", "--index", "x", "--", "--debug"], False),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 3
        assert ("Traceback" in capsys.readouterr().err) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("blå 旗袍 [red]x[/] :smile:", "blå 旗袍 [red]x[/] :smile:"),
        ("a\nb\tc\x1b[31m\x00", r"a\nb\tc\x1b[31m\x00"),
        ("\udcff\u202egpj", r"\udcff\u202egpj"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).encode("utf-8").decode("utf-8") == shown


def test_every_reporting_command_prints_one_json_document(
    shop: Shop, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(shop.root)
    fast = ["--backbone", "resnet18", "--stage", "layer1", "--image-size", "32", "--workers", "0"]
    out = str(tmp_path)
    for arguments, keys in (
        (["inspect", "--dataset", "shop", "--images"], {"dataset", "images", "attributes"}),
        (["wardrobe", f"{out}/w", "--count", "4", "--size", "32"], {"folder", "images", "splits"}),
        (
            ["train", "--dataset", "shop", "--out", f"{out}/r", "--epochs", "1", *fast],
            {"run", "checkpoint", "epochs", "validation_map"},
        ),
        (
            ["build-index", "--dataset", "shop", "--out", f"{out}/i", "--workers", "0"],
            {"index", "images", "rejected", "search"},
        ),
        (["query", "shop/images/000.png"], {"hits", "condition"}),
        (
            ["evaluate", "--dataset", "shop", "--checkpoint", "runs/shop", "--out", f"{out}/e"],
            {"dataset", "split", "mode", "seed", "all", "attributes", "combinations", "floor"},
        ),
    ):
        code, text, err = run(capsys, *arguments, "--json")
        assert code == 0, err
        found = json.loads(text)  # one document and nothing else
        assert found.keys() >= keys
        assert "Traceback" not in err


WORDS = (
    *("disc", "red", "colour:red", "gold", "blue", "colour", "Trim : Gold", "flral", "", ",", "-"),
    *("disc,gold", "disc,square", "a" * 300, "colour=red", "shape=disc", "=", "trim=", "x=y=z"),
    *("0", "1", "3", "-1", "1e9", "99999999999999999999", "nan", "shop", "runs/shop", "[/]", "%s"),
    *("shop/images/000.png", "shop/broken.jpg", "shop/labels.csv", "none.jpg", "\udcff"),
    *(f"shop/{name}" for name in ODD_NAMES),
    *("indexes/shop", "indexes", "/", ".", "..", "~", "/dev/null", "test", "valid", "all", "type"),
    *("value", "cpu", "auto", "cuda:x", "out.png", "out.txt", "--", "-h", "--json", "旗袍", "\n"),
)
OPTIONS = {
    "query": (
        *("--attrs", "--without", "--like", "--where", "--top-k", "--index", "--trust-labels"),
        *("--device", "--json", "--sheet"),
    ),
    "evaluate": (
        *("--dataset", "--root", "--checkpoint", "--split", "--mode", "--floor", "--combinations"),
        *("--combination-queries", "--max-queries", "--seed", "--device", "--json"),
    ),
    "inspect": ("--dataset", "--root", "--attributes", "--images", "--no-images", "--json"),
}
SENSIBLE = {
    "query": ["shop/images/000.png"],
    "evaluate": ["--dataset", "shop", "--checkpoint", "runs/shop", "--workers", "0"],
    "inspect": ["--dataset", "shop"],
}


def argument_vector(seed: int) -> list[str]:
    """A command and random options; mostly a sensible start, so that some get far."""
    draw = random.Random(seed)
    command = draw.choice(["query", "query", "query", "evaluate", "inspect"])
    vector = list(SENSIBLE[command]) if draw.random() < 0.8 else []
    for _ in range(draw.randint(0, 4)):
        kind = draw.random()
        if kind < 0.9:
            vector.append(draw.choice(OPTIONS[command]))
        if kind < 0.8:
            vector.append(draw.choice(WORDS))
        if kind > 0.95:
            vector.append(draw.choice(WORDS))
    return [command, *vector]


@pytest.mark.parametrize("part", range(10))
def test_fault_29_any_argument_vector_ends_with_a_known_code(
    shop: Shop, capsys, tmp_path: Path, monkeypatch, part: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("shop", "runs", "indexes"):
        (tmp_path / name).symlink_to(shop.root / name)
    codes = []
    for seed in range(part * 20, part * 20 + 20):
        vector = argument_vector(seed)
        code, out, err = run(capsys, *vector)
        assert code in (0, 2, 3, 4, 6), (vector, err)
        assert "Traceback" not in err
        assert "internal error" not in err
        assert (code == 0) or err
        if code == 0 and "--json" in vector and "-h" not in vector:
            json.loads(out)
        codes.append(code)
    assert set(codes) >= {0, 2}  # not all are refused at the door


def test_every_listed_command_can_be_imported() -> None:
    for name, (module, text) in cli.COMMANDS.items():
        if (REPOSITORY / (module.replace(".", "/") + ".py")).exists():
            assert isinstance(importlib.import_module(module).command, click.Command), name
        assert text.endswith(".")


def test_a_folder_that_hides_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training/__init__.py").write_text("")
    command = [sys.executable, "-m", "retrieval.cli", "--help"]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path / 'training'} hides the package 'training'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_import_is_an_interruption(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(context: object) -> None:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    monkeypatch.setattr(cli.cli, "invoke", fail)
    assert cli._run(["doctor"], debug=False) == 130
    assert capsys.readouterr().err == "retrieve: interrupted\n"
