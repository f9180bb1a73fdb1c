"""Help texts: fast, complete, and with examples that are right."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import click
import pytest
from command_line import invoke
from command_reference import FILE, commands, reference

from edgegap_async.cli.program import program
from edgegap_async.emulator import command_line

ALL = dict(commands())
OWN_PARSER = {("demo",), ("emulator",)}


HELPS = [
    *(("edgegap_async", *words) for words in [(), *ALL]),
    *(("edgegap_async", "emulator", word) for word in command_line._COMMANDS),
    *(("edgegap_async.emulator", *words) for words in [(), *zip(command_line._COMMANDS)]),
]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_imports_no_client(words: tuple[str, ...]) -> None:
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    print(end.code, *sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *words, "--help"], capture_output=True, text=True, check=True
    )
    status, *modules = ran.stderr.split()

    assert " ".join(words[1:]) in ran.stdout.partition("\n\n")[0]  # the usage
    assert status == "0"
    assert not {"aiohttp", "cattrs", "rich", "edgegap_async.client"} & set(modules)


@pytest.mark.parametrize("words", ALL.keys() - OWN_PARSER, ids=" ".join)
def test_a_command_says_what_it_does_and_shows_examples(words: tuple[str, ...]) -> None:
    found = ALL[words]

    assert found.help
    assert found.examples or isinstance(found, click.Group)
    assert all(one.help for one in found.params if isinstance(one, click.Option))


GROUPS = [(), *(words for words, found in ALL.items() if isinstance(found, click.Group))]


@pytest.mark.parametrize("words", GROUPS, ids=" ".join)
def test_the_help_of_a_group_lists_its_commands_and_cuts_no_text(words: tuple[str, ...]) -> None:
    listed = invoke(*words, "--help").stdout.partition("Commands:\n")[2]

    inside = {each[-1]: found for each, found in ALL.items() if each[:-1] == words}
    assert inside
    for name, found in inside.items():
        assert found.help
        text = found.help.partition(".")[0]
        assert re.search(rf"^  {name} +{re.escape(text)}\.$", listed, re.MULTILINE), name


EXAMPLES = [line for found in ALL.values() for line in found.examples]


@pytest.mark.parametrize("line", EXAMPLES, ids=str)
def test_an_example_is_a_right_command_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAME_SECRET", "canary-game")
    begin = line.index("edgegap-async")
    words = shlex.split(line[begin:].replace(")", " )").replace('"', ""), comments=False)[1:]
    cut = next((i for i, word in enumerate(words) if word in {"|", ")", "||", "&&"}), len(words))

    group: click.Command = program
    parent = program.make_context("edgegap-async", ["--json", "x"], resilient_parsing=True)
    words = words[:cut]
    while isinstance(group, click.Group):
        found = group.get_command(parent, words[0])
        assert found is not None, words
        group, words = found, words[1:]
    group.make_context("one", words, parent=parent)  # raises a UsageError


def test_without_click_the_program_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = (
        "import sys; sys.modules['click'] = None; from edgegap_async.cli import main;"
        "sys.exit(main(sys.argv[1:]))"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
        )

    ls, wanted, demo, version = run("ls"), run("--help"), run("demo", "--help"), run("--version")
    assert (ls.returncode, ls.stdout) == (2, "")
    assert "pip install 'edgegap-async[cli]'" in ls.stderr
    assert (wanted.returncode, "pip install" in wanted.stdout) == (0, True)
    assert (demo.returncode, version.returncode) == (0, 0)


def test_the_program_has_a_version() -> None:
    assert invoke("--version").stdout == invoke("--json", "--version").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes_commands_and_options(shell: str) -> None:
    assert "_EDGEGAP_ASYNC_COMPLETE" in invoke("completion", shell).stdout

    line = {"fish": "edgegap-async st"}.get(shell, "edgegap-async st")
    variables = {
        "_EDGEGAP_ASYNC_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": "st" if shell == "fish" else "1",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "edgegap_async"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "stop" in ran.stdout


def test_the_guide_has_the_help_texts_of_today() -> None:
    assert FILE.read_text("utf-8") == reference(), "python tests/support/command_reference.py"
