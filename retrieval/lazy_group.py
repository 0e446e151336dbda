"""Commands that are imported when they are called: until then nothing that computes is loaded."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import click

from training.errors import UsageError


class LazyGroup(click.Group):
    """Subcommands that are imported when one is called: `lazy` is name -> (module with a click
    command called `command`, one-line help)."""

    def __init__(self, lazy: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order given."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The `command` of a subcommand's module; a name that is not there tells the nearest."""
        if cmd_name in self._lazy:
            command: click.Command = importlib.import_module(self._lazy[cmd_name][0]).command
            return command
        if cmd_name.startswith("-"):
            return None
        near = difflib.get_close_matches(cmd_name, self._lazy, n=3, cutoff=0.4)
        told = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(self._lazy)}"
        raise UsageError(f"unknown command {cmd_name!r}; {told}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands with their one-line help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy.items()])
