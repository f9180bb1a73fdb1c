"""The guide's list of commands, made from their help texts.

`python tests/support/command_reference.py` writes `examples/COMMANDS.md`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from edgegap_async.cli import exits
from edgegap_async.cli.command import GLOBAL_OPTIONS, Command
from edgegap_async.cli.program import NAME, program

FILE: Final = Path(__file__).parents[2] / "examples" / "COMMANDS.md"
_BEGIN: Final = """\
# Commands

What `edgegap-async --help` and `edgegap-async COMMAND --help` say; the
[guide](README.md#use-the-command-line) shows how to use them. This file is generated:
`python tests/support/command_reference.py` writes it, and a test compares.
"""


def commands(
    group: click.Group = program, before: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Yields the words and the command of every command, in the order of the help text."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert isinstance(found, Command)
        yield (*before, name), found
        if isinstance(found, click.Group):
            yield from commands(found, (*before, name))


def reference() -> str:
    """Returns the text of the file."""
    context = click.Context(program, info_name=NAME)
    exit_table = (exits.__doc__ or "").partition("\n\n")[2].strip()
    parts = [
        _BEGIN,
        _paragraphs(program),
        "Options of every command, before or after its name:\n",
        _options(GLOBAL_OPTIONS, context),
        "## Exit statuses\n",
        f"{exit_table}\n",
    ]
    for words, found in commands():
        if isinstance(found, click.Group):
            continue
        context = click.Context(found, info_name=" ".join((NAME, *words)))
        usage = " ".join((NAME, *words, *found.collect_usage_pieces(context)))
        parts += [f"## {' '.join(words)}\n", f"```\n{usage}\n```\n", _paragraphs(found)]
        if options := _options(found.params, context):
            parts.append(options)
        if found.examples:
            parts.append("```sh\n" + "\n".join(found.examples) + "\n```\n")
    return "\n".join(parts)


def _paragraphs(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    paragraphs = (part.replace("\n", " ") for part in text.split("\n\n"))
    return "\n\n".join(paragraphs).strip() + "\n"


def _options(parameters: object, context: click.Context) -> str:
    assert isinstance(parameters, list | tuple)
    options = (one for one in parameters if isinstance(one, click.Option))
    records = (one.get_help_record(context) for one in options)
    return "".join(f"- `{name}`: {text}\n" for name, text in filter(None, records))


if __name__ == "__main__":
    FILE.write_text(reference(), "utf-8")
