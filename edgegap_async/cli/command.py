"""What all commands have: the global options, examples in the help text, and an open client."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import click

from .exits import FAILED, Failure
from .output import Output

GLOBAL_OPTIONS: Final = (
    click.Option(["--json"], is_flag=True, help="Print data as JSON, one object a line."),
    click.Option(["--quiet", "-q"], is_flag=True, help="Print ids alone; no progress, no remarks."),
    click.Option(
        ["--verbose", "-v"], count=True, help="Log what the client does; -vv in every detail."
    ),
)
"""Options of every command; they may stand before or after its name."""


def _set_in_output(context: click.Context, option: click.Parameter, value: object) -> None:
    if value and option.name:
        setattr(output_of(context), option.name, value)


for _option in GLOBAL_OPTIONS:
    _option.expose_value = False
    _option.callback = _set_in_output


def output_of(context: click.Context) -> Output:
    """Returns the output of the whole command line."""
    return context.find_root().ensure_object(Output)


class Command(click.Command):
    """A command with the global options, and with examples in its help text.

    Args:
        examples: command lines.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples: Final = tuple(examples)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Returns the parameters, the global options among them."""
        return [*super().get_params(ctx), *GLOBAL_OPTIONS]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the command's own options; the program's help text has the global ones."""
        with formatter.section("Options"):
            formatter.write_dl(self.records_of(self.params, ctx))

    def records_of(
        self, options: Iterable[click.Parameter], ctx: click.Context
    ) -> list[tuple[str, str]]:
        """Returns the lines of the help text about options, and about `--help`."""
        shown = [
            one for one in (*options, self.get_help_option(ctx)) if isinstance(one, click.Option)
        ]
        return [record for one in shown if (record := one.get_help_record(ctx))]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples."""
        del ctx
        with formatter.section("Global options"):
            formatter.write_text("--json  --quiet  -v; see edgegap-async --help")
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:  # each whole in its line
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Group(Command, click.Group):
    """Commands about one noun."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command that the words name; the error for a wrong one names similar ones."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:  # it knows imported commands alone
            names = self.list_commands(ctx)
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=names, ctx=ctx
            ) from None


def command(*examples: str) -> Callable[[Callable[..., int | None]], Command]:
    """Returns a decorator that makes a command of a function, with its docstring as help text.

    Args:
        examples: command lines for the help text.
    """
    return click.command(cls=Command, examples=examples)


def with_client(work: Callable[..., Awaitable[int | None]]) -> Callable[..., int | None]:
    """Makes a command's callback of a coroutine function that needs an open client.

    The coroutine function gets the client, the output and the arguments of the command line. If the
    command has the option `--owner`, the client has this owner.
    """

    @functools.wraps(work)
    def run(**arguments: Any) -> int | None:
        from .session import run_with_client  # imports the client

        output = output_of(click.get_current_context())
        return run_with_client(
            lambda client: work(client, output, **arguments),
            owner=arguments.get("owner"),
            verbose=output.verbose,
        )

    return run


yes_option = click.option(
    "--yes", "-y", "is_sure", is_flag=True, help="Do not ask; needed where no terminal is."
)
"""The option that answers `confirm`."""


async def confirm(question: str, *, is_sure: bool) -> None:
    """Asks before something is lost, and returns if the answer is yes.

    Args:
        question: what is about to be done.
        is_sure: whether `--yes` was given.

    Raises:
        UsageError: it was not given, and stdin is no terminal.
        Failure: the answer is not yes.
    """
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Add --yes: there is no terminal to ask at")
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    if (await _typed_line()).strip().lower() not in {"y", "yes"}:
        raise Failure(FAILED, "Nothing was done.")


async def _typed_line() -> str:
    """Returns a line that a person types; `input` would keep Ctrl-C from the event loop."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[bytes] = loop.create_future()
    terminal = sys.stdin.fileno()

    def read() -> None:
        loop.remove_reader(terminal)
        typed.set_result(os.read(terminal, 1024))

    loop.add_reader(terminal, read)
    try:
        return (await typed).decode(errors="replace")
    finally:
        loop.remove_reader(terminal)
