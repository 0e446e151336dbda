"""The `retrieve` command: its subcommands, and the one place where errors become exit codes.

A subcommand's module is imported only when it is called, so that `retrieve --help` does not
import torch, `--threads` is known before anything that computes is loaded, and `bench` can live in
`benchmarks/` without a backward import.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from retrieval.console import printable
from retrieval.lazy_group import LazyGroup
from training.errors import ResourceError, RetrieveError, UsageError
from training.threads import MOST, settle

COMMANDS = {
    "build-index": ("retrieval.commands.build_index", "Encode a gallery and index it."),
    "merge-index": ("retrieval.commands.merge_index", "Make an index of parts encoded apart."),
    "add": ("retrieval.commands.add", "Put single images into an index."),
    "remove": ("retrieval.commands.remove", "Take single images out of an index."),
    "export": ("retrieval.commands.export", "Write an index into a database, or a Parquet file."),
    "query": ("retrieval.commands.query", "Find the gallery images that fit a picture and labels."),
    "names": ("retrieval.commands.names", "Print attributes and values that an index knows."),
    "train": ("retrieval.commands.train", "Train an embedder on a dataset."),
    "evaluate": ("retrieval.commands.evaluate", "Measure attribute-specific MAP on a split."),
    "tag": ("retrieval.commands.tag", "Fill in what a catalogue does not say, by a model."),
    "verify": ("retrieval.commands.verify", "Check every file of an index; repair it."),
    "doctor": ("retrieval.commands.doctor", "Print what a bug report needs; try a small search."),
    "inspect": ("retrieval.commands.inspect", "Print counts, splits, broken files of a dataset."),
    "label": ("retrieval.commands.label", "Fill in labels that a catalogue's titles tell."),
    "serve": ("service.command", "Answer queries over HTTP, with a page to ask on."),
    "wardrobe": ("benchmarks.wardrobe.command", "Render the project's own garments to disk."),
    "bench": ("benchmarks.cli", "Reproduce the figures that the project quotes."),
}
"""Subcommand name -> (module with a click command called `command`, one-line help)."""


def version() -> str:
    """The version, and the commit where it is known: of a checkout, or written into the wheel."""
    import subprocess
    from importlib import metadata

    here = Path(__file__).resolve()
    commit = ""
    with suppress(OSError, subprocess.CalledProcessError):
        if (here.parents[1] / ".git").exists():
            command = ["git", "-C", str(here.parent), "rev-parse", "--short=12", "HEAD"]
            commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        else:
            commit = here.with_name("commit").read_text()
    told = f" (commit {commit.strip()})" if commit.strip() else ""
    return metadata.version("m2fashion-retrieval") + told


def _print_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"retrieve, version {version()}")
        context.exit()


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MOST),
    is_eager=True,
    expose_value=False,
    callback=lambda context, option, count: settle(count),
    help="Threads that compute [default: $RETRIEVE_THREADS, else the cores that may be used].",
)
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def cli(debug: bool) -> None:
    """Attribute-specific fashion image retrieval.

    \b
    retrieve build-index --dataset darn
    retrieve query img.jpg --attrs v-neckline,floral
    """


class _Lasting(io.TextIOWrapper):
    """Standard error that may be closed while a command works: what is said then is lost."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with 0 ok, 1 bug, 2 usage, 3 data, 4 corrupt, 5 locked, 6 out.

    130 and 143 after SIGINT and SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in takewhile(lambda argument: argument not in COMMANDS, arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label that the terminal's encoding lacks is shown escaped, not an error.
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # closed by the caller
        sys.stdout = io.StringIO()
    if isinstance(sys.stderr, io.TextIOWrapper) and sys.stderr is sys.__stderr__:
        # Without a buffer: a signal's handler may write while a write goes on.
        raw: Any = getattr(sys.stderr.buffer, "raw", sys.stderr.buffer)
        sys.stderr = _Lasting(raw, sys.stderr.encoding, "backslashreplace", write_through=True)
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run(arguments, debug))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End through an exception: killed outright, a command would leave its workers behind."""
    click.echo("retrieve: terminated", err=True)
    raise SystemExit(143)


def _run(arguments: list[str], debug: bool) -> int:
    try:
        for argument in arguments:
            if "\0" in argument:
                raise UsageError(f"{argument!r}: no name or number holds a NUL")
        # Not `cli.main`: click turns a closed pipe into exit code 1, which is a bug's.
        with cli.make_context("retrieve", list(arguments), obj=arguments) as context:
            result: Any = cli.invoke(context)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:  # after --help or --version
        return error.exit_code
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # so rich ends a program
            return _reader_gone()
        raise
    except BaseException as error:
        return _failed(error, debug)


def _failed(error: BaseException, debug: bool) -> int:
    """Tell of an error; its exit code."""
    if isinstance(error, BrokenPipeError) and not _stdout_is_read():
        return _reader_gone()
    if isinstance(error, click.exceptions.Abort) or _interrupted(error):
        click.echo("retrieve: interrupted", err=True)
        return 130
    if isinstance(error, click.ClickException):
        message = io.StringIO()
        error.show(message)
        _say(message.getvalue().rstrip())
        return 2
    if debug:
        _say(traceback.format_exc())
    told: RetrieveError | None = None
    if isinstance(error, RetrieveError):
        told = error
    elif isinstance(error, BrokenPipeError):  # it was a pipe to a process of ours
        told = ResourceError(f"a process of this command has ended: {error}")
    elif isinstance(error, MemoryError):
        told = ResourceError(f"out of memory {error}".strip())
    elif isinstance(error, OSError):
        told = ResourceError(str(error))
    if told is not None:
        _say(f"retrieve: {told}")
        return told.exit_code
    _say(
        f"retrieve: internal error: {type(error).__name__}: {error}\n"
        "This is a bug; `retrieve --debug ...` shows the traceback."
    )
    return 1


def _interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind an error: an import that it hits may end in one of another kind."""
    chain: BaseException | None = error
    while chain is not None and not isinstance(chain, KeyboardInterrupt):
        chain = chain.__cause__ or chain.__context__
    return chain is not None


def _stdout_is_read() -> bool:
    """Whether standard output still has a reader."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    except (OSError, ValueError):  # it has no descriptor
        return True


def _reader_gone() -> int:
    """End well when a reader such as `head` has closed the pipe: results come when work is done."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _say(text: str) -> None:
    """Write to standard error; a file name in the text may hold anything."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=True)


if __name__ == "__main__":
    main()
