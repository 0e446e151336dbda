"""The `retrieve` command: a lazy click group and the one place where errors become exit codes.

A subcommand's module is imported only when it is called, so that `retrieve --help` does not
import torch and `bench` can live in `benchmarks/` without a backward import.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Any

import click

from training.errors import RetrieveError

COMMANDS = {
    "build-index": ("retrieval.commands.build_index", "Encode a gallery and index it."),
    "query": ("retrieval.commands.query", "Find the gallery images that fit a picture and labels."),
    "train": ("retrieval.commands.train", "Train an embedder on a dataset."),
    "evaluate": ("retrieval.commands.evaluate", "Measure attribute-specific MAP on a split."),
    "inspect": (
        "retrieval.commands.inspect",
        "Print counts, splits and broken files of a dataset.",
    ),
    "wardrobe": ("retrieval.commands.wardrobe", "Render the project's own garments to disk."),
    "bench": ("benchmarks.cli", "Reproduce the figures that the project quotes."),
}
"""Subcommand name -> (module with a click command called `command`, one-line help)."""


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a subcommand and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands with their one-line help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
    debug = "--debug" in arguments
    sys.exit(_run(arguments, debug))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        result: Any = cli.main(args=arguments, prog_name="retrieve", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except RetrieveError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"retrieve: {error}", err=True)
        return error.exit_code
    except click.exceptions.Abort:
        click.echo("retrieve: interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except KeyboardInterrupt:
        click.echo("retrieve: interrupted", err=True)
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        click.echo(
            f"retrieve: internal error: {type(error).__name__}: {error}\n"
            "This is a bug; run again with --debug for the traceback.",
            err=True,
        )
        return 1


if __name__ == "__main__":
    main()
