"""The program `edgegap-async`: its commands, and the end of each with an exit status."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import click

from edgegap_async.errors import EdgegapError

from .command import GLOBAL_OPTIONS, Command, Group, output_of
from .exits import INTERRUPTED, report, status_of
from .output import Output, release_streams
from .standalone import print_version, run_demo, run_emulator

NAME: Final = "edgegap-async"
_COMPLETE_VARIABLE: Final = "_EDGEGAP_ASYNC_COMPLETE"  # as click derives it from the name

_MODULES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "deploy": ("deploy",),
        "deployments": ("ls", "status", "wait", "stop"),
        "readings": ("logs", "metrics", "top"),
        "pools": ("pool",),
        "owners": ("recover", "reap"),
        "places": ("locations", "beacons"),
        "applications": ("apps", "versions"),
        "check": ("check",),
    }
)
"""The commands of each module of `commands`, in the order of the help text."""

_EXPECTED: Final = (
    EdgegapError,
    ExceptionGroup,  # of several deployments
    click.ClickException,
    OSError,
    KeyboardInterrupt,
)
"""Ends of a command that need no traceback."""


class Program(Group):
    """The root of the command line, which imports the module of a command with the command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands in the order of the help text."""
        del ctx
        return [*(name for names in _MODULES.values() for name in names), *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command by its name."""
        for module, names in _MODULES.items():
            if cmd_name in names:
                found: click.Command = getattr(
                    import_module(f".commands.{module}", __package__), cmd_name
                )
                return found
        return super().get_command(ctx, cmd_name)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the global options, then the commands."""
        with formatter.section("Options, before or after the command"):
            formatter.write_dl(self.records_of([*GLOBAL_OPTIONS, *self.params], ctx))
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes nothing: the docstring has everything."""


def _print_version(context: click.Context, option: click.Parameter, value: object) -> None:
    del option
    if value and not context.resilient_parsing:
        print_version()
        context.exit()


@click.group(NAME, cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def program() -> None:
    """Run game servers on Edgegap or on its emulator.

    The API token is in EDGEGAP_API_TOKEN, or in the file that EDGEGAP_API_TOKEN_FILE names. With
    EDGEGAP_BASE_URL the commands use an emulator, which `edgegap-async emulator` starts. Data goes
    to stdout, progress and errors to stderr. NO_COLOR turns colours off.

    Exit status: 0 done, 1 an error, 2 a wrong command line, 3 the deployment failed, 4 no valid
    token, 5 not found, 6 a deployment may exist (stdout has its operation tag), 124 not in time,
    130 Ctrl-C, 143 SIGTERM.
    """


def _program_with_a_parser_of_its_own(name: str, text: str, run: Any) -> None:
    @program.command(
        name,
        help=text,
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def start(words: Sequence[str]) -> int:
        result: int = run(list(words))
        return result


_program_with_a_parser_of_its_own(
    "demo", "Deploy, play, stop: by polling, by webhook, ten at once.", run_demo
)
_program_with_a_parser_of_its_own(
    "emulator", "The Edgegap API on this machine, with real processes.", run_emulator
)


@program.command(
    "completion",
    cls=Command,
    examples=('eval "$(edgegap-async completion bash)"', "edgegap-async completion fish | source"),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options in a shell."""
    from click.shell_completion import get_completion_class  # for this alone

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has the three
    output_of(context).line(kind(program, {}, NAME, _COMPLETE_VARIABLE).source())


def run(words: Sequence[str]) -> int:
    """Runs a command line and returns its exit status; every error has been printed then.

    Args:
        words: the words after the program's name.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # its encoding may lack characters
            stream.reconfigure(errors="backslashreplace")
    output = Output()
    if instruction := os.environ.get(_COMPLETE_VARIABLE):
        from click.shell_completion import shell_complete  # for this alone

        return shell_complete(program, {}, NAME, _COMPLETE_VARIABLE, instruction)
    try:
        # `program.main` would take a closed pipe for a failure.
        with program.make_context(NAME, list(words), obj=output) as context:
            result = program.invoke(context)
    except click.exceptions.Exit as end:  # --help, --version
        return end.exit_code
    except BrokenPipeError:  # the reader of the output has left, as `head` does
        release_streams()
        return 0
    except asyncio.CancelledError:
        return INTERRUPTED
    except _EXPECTED as error:
        with contextlib.suppress(BrokenPipeError):
            report(error, output)
        return status_of(error)
    return result if isinstance(result, int) else 0
