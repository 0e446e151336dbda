"""The `retrieve` command: its subcommands, and the one place where errors become exit codes.

A subcommand's module is imported only when it is called, so that `retrieve --help` does not
import torch and `bench` can live in `benchmarks/` without a backward import.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import traceback
from itertools import takewhile
from types import FrameType
from typing import Any, NoReturn

import click

from retrieval.lasting_stderr import keep_stderr
from retrieval.lazy_group import LazyGroup
from retrieval.printable import printable
from training.errors import ResourceError, RetrieveError, UsageError
from training.worker_death import worker_death

COMMANDS = {
    "build-index": ("retrieval.commands.build_index", "Encode a gallery and index it."),
    "add": ("retrieval.commands.add", "Put single images into an index."),
    "remove": ("retrieval.commands.remove", "Take single images out of an index."),
    "query": ("retrieval.commands.query", "Find the gallery images that fit a picture and labels."),
    "train": ("retrieval.commands.train", "Train an embedder on a dataset."),
    "evaluate": ("retrieval.commands.evaluate", "Measure attribute-specific MAP on a split."),
    "verify": ("retrieval.commands.verify", "Check every file of an index; repair it."),
    "doctor": ("retrieval.commands.doctor", "Check the installation, a dataset and an index."),
    "inspect": (
        "retrieval.commands.inspect",
        "Print counts, splits and broken files of a dataset.",
    ),
    "wardrobe": ("retrieval.commands.wardrobe", "Render the project's own garments to disk."),
    "bench": ("benchmarks.cli", "Reproduce the figures that the project quotes."),
}
"""Subcommand name -> (module with a click command called `command`, one-line help)."""


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="m2fashion-retrieval", prog_name="retrieve")
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Attribute-specific fashion image retrieval.

    \b
    retrieve build-index --dataset darn
    retrieve query img.jpg --attrs v-neckline,floral
    """
    ctx.obj = {"debug": debug}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with 0 ok, 1 bug, 2 usage, 3 data, 4 corrupt, 5 locked, 6 out.

    130 and 143 after SIGINT and SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in takewhile(lambda argument: argument.startswith("-"), arguments)
    keep_stderr()
    for stream in (sys.stdout, sys.stderr):
        # A label that the terminal's encoding lacks is shown escaped, not an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # closed by the caller
        sys.stdout = io.StringIO()
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(_run(arguments, debug))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End through an exception: killed outright, a command would leave its workers behind."""
    click.echo("retrieve: terminated", err=True)
    raise SystemExit(143)


def _run(arguments: list[str], debug: bool) -> int:
    for argument in arguments:
        if "\0" in argument:
            return _report(UsageError(f"{argument!r}: no name or number holds a NUL"), debug)
    try:
        # Not `cli.main`: click turns a closed pipe into exit code 1, which is a bug's.
        with cli.make_context("retrieve", list(arguments)) as context:
            result: Any = cli.invoke(context)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:  # after --help or --version
        return error.exit_code
    except RetrieveError as error:
        return _report(error, debug)
    except click.exceptions.Abort:
        click.echo("retrieve: interrupted", err=True)
        return 130
    except click.ClickException as error:
        message = io.StringIO()
        error.show(message)
        _say(message.getvalue().rstrip())
        return 2
    except KeyboardInterrupt:
        click.echo("retrieve: interrupted", err=True)
        return 130
    except BrokenPipeError as error:
        if _stdout_is_read():  # it was a pipe to a process of ours
            return _report(ResourceError(f"a process of this command has ended: {error}"), debug)
        return _reader_gone()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # so rich ends a program
            return _reader_gone()
        raise
    except MemoryError as error:
        return _report(ResourceError(f"out of memory {error}".strip()), debug)
    except OSError as error:
        return _report(ResourceError(str(error)), debug)
    except Exception as error:
        death = worker_death(error)
        if death is not None:
            return _report(death, debug)
        if _interrupted(error):
            click.echo("retrieve: interrupted", err=True)
            return 130
        if debug:
            _say(traceback.format_exc())
        _say(
            f"retrieve: internal error: {type(error).__name__}: {error}\n"
            "This is a bug; `retrieve --debug ...` shows the traceback."
        )
        return 1


def _interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind an error: an import that it hits may end in one of another kind."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, KeyboardInterrupt):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def _stdout_is_read() -> bool:
    """Whether standard output still has a reader."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return not any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    except (OSError, ValueError):  # it has no descriptor
        return True


def _reader_gone() -> int:
    """End well when a reader such as `head` has closed the pipe; what is left is not written.

    Results are printed when the work is done.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _report(error: RetrieveError, debug: bool) -> int:
    if debug:
        _say(traceback.format_exc())
    _say(f"retrieve: {error}")
    return error.exit_code


def _say(text: str) -> None:
    """Write to standard error; a file name in the text may hold anything."""
    click.echo("\n".join(map(printable, text.split("\n"))), err=True)


if __name__ == "__main__":
    main()
