"""The TOML file: settings, faults, and what is wrong in it, with the line."""

from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import attrs
import pytest

from edgegap_async.emulator import (
    Application,
    AppPort,
    Emulator,
    Fault,
    Image,
    PrivateHost,
    Respond,
    Simulation,
    Timings,
    check_file,
)
from edgegap_async.emulator.settings_file import SETTINGS, EmulatorSettings
from edgegap_async.errors import InvalidRequest

RIGHT = """\
[settings]
timings = { seeking = [0.1, 0.2], deploying = 1 }
limits = { deploy = 5, list_deployments = false }
port_range = [30000, 30009]
player_locations = { "10.0.0.0/8" = [48.9, 2.4] }
round_trip_time = [0, 0.1]
simulate = { seed = 7, ready_after = [0.5, 1.0] }
host_shape = "centroid"
keep_errors = "never"
list_accepts_filters = false
location_capacity = { Paris = 3 }
deadlines = { body = 5 }
state = "kept"

[[faults]]
operation = "deploy"
effect = { name = "respond", status = 503 }
times = 2
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "edgegap.toml"
    path.write_text(text, "utf-8")
    return path


def test_every_setting_of_a_file_reaches_the_emulator(tmp_path: Path) -> None:
    path = written(tmp_path, RIGHT)
    emulator = Emulator.from_file(path, host_shape="pin")
    settings = emulator._settings

    assert check_file(path) == []
    assert settings.timings == Timings(seeking=(0.1, 0.2), deploying=1)
    assert emulator.limits == {**emulator.limits, "deploy": 5}
    assert "list_deployments" not in emulator.limits
    assert settings.port_range == range(30000, 30010)
    assert settings.player_locations == {"10.0.0.0/8": (48.9, 2.4)}
    assert settings.simulate == Simulation(seed=7, ready_after=(0.5, 1.0))
    assert settings.host_shape == "pin"  # the argument
    assert (settings.keep_errors, settings.list_accepts_filters) == (None, False)
    assert emulator._state_folder == str(tmp_path / "kept")
    assert emulator.faults.left == (Fault("deploy", Respond(503), times=2),)


def test_type_checkers_know_each_argument_of_the_emulator_by_name() -> None:
    arguments = get_type_hints(Emulator.__init__)
    del arguments["apps"], arguments["return"]

    assert get_type_hints(EmulatorSettings) == arguments


def test_a_file_with_settings_is_not_read_without_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"use Emulator\.from_file\(path\)"):
        Emulator(written(tmp_path, RIGHT))


WRONG = """\
[[applications]]
name = "arena"
version = "v1"
argv = ["/none/such", "{port:game}"]
ports = [{ name = "game", protoc = "UDP" }]

[[applications]]
name = "ctf"
version = "v1"
argv = ["no-such-program-anywhere"]
notes = \"\"\"
version = "not a key"
\"\"\"

[[fleets]]
name = "alpha"
[[fleets.hosts]]
host_id = "h1"
[[fleets.hosts]]
host_id = "h2"
city = "Atlantis"

[settings]
list_delay = -1
timimgs = "fast"
port_range = 30000
timings = { seking = 1 }

[[faults]]
operation = "deploi"
effect = "drop"
"""


def test_each_problem_names_its_line_and_what_would_be_right(tmp_path: Path) -> None:
    problems = check_file(written(tmp_path, WRONG))
    found = {(one.line, one.place): one.message for one in problems}

    assert "Did you mean protocol?" in found[5, "applications[0].ports.protoc"]
    assert "unknown; there are name, version" in found[11, "applications[1].notes"]
    assert "must be one of Montreal" in found[21, "fleets[0].hosts.city"]
    assert "list_delay must be 0 or more" in found[24, "settings.list_delay"]
    assert "Did you mean timings?" in found[25, "settings.timimgs"]
    assert "[30000, 32767]" in found[26, "settings.port_range"]
    assert "Did you mean seeking?" in found[27, "settings.timings"]
    assert "deploi" in found[29, "faults[0]"]
    assert all(str(one).startswith(f"{tmp_path}/edgegap.toml:{one.line}: ") for one in problems)


def test_a_missing_program_is_found_by_the_check_alone(tmp_path: Path) -> None:
    text = '[[applications]]\nname = "a"\nversion = "1"\nargv = ["./server"]\n'
    path = written(tmp_path, text)
    (problem,) = check_file(path)

    assert (problem.line, problem.place, problem.is_error) == (4, "applications[0].argv", False)
    assert "there is no program './server'" in problem.message
    Emulator(path)  # the program may be built later
    (tmp_path / "server").touch(mode=0o755)
    assert check_file(path) == []


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("x = \n", 1, "Invalid value"),
        ("\n\nfleet = []\n", 3, "Did you mean fleets?"),
        ("settings = 5\n", 1, r"write [settings] once"),
        (
            '[[images]]\nimage = "registry.test/arena"\nsandbox = "podman"\n',
            3,
            "one of none, bwrap, docker, not 'podman'",
        ),
    ],
)
def test_a_problem_of_the_whole_file_has_a_line(
    tmp_path: Path, text: str, line: int, complaint: str
) -> None:
    (problem,) = check_file(written(tmp_path, text))

    assert problem.line == line
    assert complaint in problem.message


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check_file(tmp_path / "none.toml")

    assert "No such file" in str(problem)


APPLICATION = {"name": '"arena"', "version": '"v1"', "argv": '["{python}"]'}
TABLES = [
    (Application, "[[applications]]", APPLICATION),
    (
        AppPort,
        "[[applications]]\nname = 'a'\nversion = '1'\nargv = ['{python}']\n[[applications.ports]]",
        {},
    ),
    (Image, "[[images]]", {"image": '"registry.test/arena"', "argv": '["{python}"]'}),
    (PrivateHost, "[[fleets]]\nname = 'a'\n[[fleets.hosts]]", {"host_id": '"h"'}),
    (Fault, "[[faults]]", {"operation": '"deploy"', "effect": '"drop"'}),
]


@pytest.mark.parametrize(
    "value",
    [
        "{ b = 1 }",
        "{ b = { c = [] } }",
        "[[1]]",
        "[{}]",
        "-1.5",
        "nan",
        "true",
        "1979-05-27T07:32:00Z",
    ],
)
def test_a_value_of_any_type_in_any_place_is_a_problem_with_a_line_or_right(
    tmp_path: Path, value: str
) -> None:
    lines = []
    for kind, header, required in TABLES:
        for field in attrs.fields(kind):
            lines += header.split("\n")
            lines += [f"{key} = {one}" for key, one in required.items() if key != field.name]
            lines.append(f"{field.name} = {value}")
    lines += ["[settings]", *(f"{name} = {value}" for name in SETTINGS)]

    problems = check_file(written(tmp_path, "\n".join(lines)))

    assert len(problems) > len(SETTINGS) / 2
    assert all(problem.line for problem in problems)


@pytest.mark.parametrize(
    ("text", "line", "place"),
    [
        ("environment = { MODE = 5 }", 5, "environment.MODE"),
        ("environment.MODE = 5", 5, "environment.MODE"),
        ('environment = { "A]; @ $.\'b" = 5 }', 5, None),
        ('# x """ y\nprots = 1', 6, "prots"),
        ("""environment.A = "'''"\nprots = 1""", 6, "prots"),
        ('environment.A = \'"""\'\nprots = 1', 6, "prots"),
        ('environment.A = """\nx""""\nprots = 1', 7, "prots"),
        ("# one \u2028 line \u0085 it is\nprots = 1", 6, "prots"),
        ("ports = [7777]", 5, "ports"),
        ("directory = 'none'", 5, "directory"),
        ("restart_policy = 1979-05-27", 5, "restart_policy"),
        ('"\\u001b[31m\\n" = 1', 1, r"\x1b[31m\n"),
    ],
)
def test_a_problem_has_the_line_and_the_place_of_its_key(
    tmp_path: Path, text: str, line: int, place: str | None
) -> None:
    application = "\n".join(f"{key} = {value}" for key, value in APPLICATION.items())
    (problem,) = check_file(written(tmp_path, f"\ufeff[[applications]]\n{application}\n{text}\n"))

    assert problem.line == line
    assert place is None or problem.place == f"applications[0].{place}"


def test_no_problem_shows_a_secret(tmp_path: Path) -> None:
    application = "\n".join(f"{key} = {value}" for key, value in APPLICATION.items())
    secrets = "hidden_environment = { PASSWORD = 4711 }\nprivate_token = 4711"
    problems = check_file(written(tmp_path, f"[[applications]]\n{application}\n{secrets}"))

    assert [one.place.rpartition(".")[2] for one in problems] == ["private_token", "PASSWORD"]
    assert "4711" not in "".join(map(str, problems))


def test_a_file_that_is_nested_too_deeply_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check_file(written(tmp_path, f"a = {'[' * 9000}{']' * 9000}"))

    assert "recursion" in problem.message
