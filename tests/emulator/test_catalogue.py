"""Applications and fleets, from code and from a TOML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgegap_async.emulator import (
    Application,
    AppPort,
    Emulator,
    Fleet,
    Image,
    PrivateHost,
    Simulation,
    check_file,
    load_apps,
    sample_application,
)
from edgegap_async.emulator.catalogue import Catalogue
from edgegap_async.errors import InvalidRequest


def _written(folder: Path, text: str) -> Path:
    path = folder / "apps.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_file_and_code_give_the_same_catalogue(tmp_path: Path) -> None:
    path = _written(
        tmp_path,
        """
        [[applications]]
        name = "arena"
        version = "v1"
        argv = ["{python}", "server.py", "--port={port:game}"]
        ports = [{ name = "game", protocol = "UDP" }, { name = "web", protocol = "WS" }]
        environment = { MODE = "ranked" }
        hidden_environment = { PASSWORD = "s3cret" }
        directory = "build"
        max_duration = 0.5
        memory_limit_mb = 512

        [[fleets]]
        name = "alpha"
        [[fleets.hosts]]
        host_id = "alpha-1"
        city = "Paris"
        """,
    )

    catalogue = load_apps(path)

    assert catalogue == Catalogue(
        applications=(
            Application(
                name="arena",
                version="v1",
                argv=("{python}", "server.py", "--port={port:game}"),
                ports=(AppPort("game"), AppPort("web", "WS")),
                environment={"MODE": "ranked"},
                hidden_environment={"PASSWORD": "s3cret"},
                directory=str(tmp_path / "build"),
                max_duration=0.5,
                memory_limit_mb=512,
            ),
        ),
        fleets=(Fleet(name="alpha", hosts=(PrivateHost(host_id="alpha-1", city="Paris"),)),),
    )


def test_an_application_of_a_file_starts_beside_the_file(tmp_path: Path) -> None:
    path = _written(tmp_path, '[[applications]]\nname = "a"\nversion = "1"\nargv = ["./server"]\n')

    (application,) = load_apps(str(path)).applications

    assert application.directory == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = ", "Invalid value"),
        ("apps = []", "apps: unknown; there are applications, images, fleets, settings, faults"),
        ("applications = 5", r"write \[\[applications\]\]"),
        (
            '[[applications]]\nversion = "1"\nargv = ["x"]',
            r"applications\[0\]\.name: required field missing",
        ),
        (
            '[[applications]]\nname = "a"\nversion = "1"\nargv = ["x"]\nportz = 5',
            r"applications\[0\]\.portz: unknown; .*Did you mean ports\?",
        ),
        (
            '[[applications]]\nname = "a"\nversion = 1\nargv = ["x"]',
            r"applications\[0\]\.version: a str is needed, not 1",
        ),
        (
            '[[applications]]\nname = "a"\nversion = "1"\nargv = "x"',
            r"applications\[0\]\.argv: a list is needed, not 'x'",
        ),
        (
            '[[applications]]\nname = "a"\nversion = 2025-01-01\nargv = ["x"]',
            r"applications\[0\]\.version: a str is needed, not",
        ),
        (
            '[[applications]]\nname = "a"\nversion = "1"\nargv = ["{port:gaem}"]',
            r"'a' version '1': argv has \{port:gaem\}",
        ),
        (
            '[[applications]]\nargv = ["x"]\nports = [{ name = "game", protocol = "UPD" }]',
            "AppPort.protocol must be one of UDP, TCP, .* not 'UPD'",
        ),
        (
            '[[fleets]]\nname = "f"\n[[fleets.hosts]]\nhost = 1',
            r"fleets\[0\]\.hosts\.host: unknown; .*host_id",
        ),
    ],
)
def test_an_error_in_a_file_is_reported_with_its_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"(?s)apps\.toml:(\d+:)? .*{complaint}"):
        load_apps(_written(tmp_path, text))


def test_a_missing_file_is_reported_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.toml.*No such file"):
        load_apps(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"name": "a/b"}, r"Application.name must not hold / "),
        ({"version": ""}, "Application.version must be a text"),
        ({"argv": ()}, "argv must be a list of strings"),
        ({"argv": "x y"}, "argv must be a list of strings"),
        ({"argv": ("x", 1)}, "argv must be a list of strings"),
        ({"argv": ("",)}, "argv must be a list of strings"),
        ({"ports": (AppPort("a"), AppPort("a"))}, "two ports are named 'a'"),
        ({"environment": {"A": "\0"}}, "the value of 'A' must not hold NUL"),
        ({"max_duration": -2}, "Application.max_duration must be -1 or more"),
        ({"time_to_deploy": float("inf")}, "time_to_deploy must be 0 or more"),
        ({"cpu_units": True}, "cpu_units must be of type int, not True"),
        (
            {"restart_policy": "sometimes"},
            "restart_policy must be one of always, never, on_failure",
        ),
    ],
)
def test_an_invalid_application_is_refused(changed: dict[str, Any], complaint: str) -> None:
    possible: dict[str, Any] = {"name": "a", "version": "1", "argv": ("x",)}

    with pytest.raises(InvalidRequest, match=complaint):
        Application(**possible | changed)


def test_duplicate_names_are_refused() -> None:
    one = Application(name="a", version="1", argv=("x",))
    host = PrivateHost(host_id="h")

    with pytest.raises(InvalidRequest, match="two applications have the name and version"):
        Catalogue(applications=(one, one))
    with pytest.raises(InvalidRequest, match="two fleets have the name 'f'"):
        Catalogue(fleets=(Fleet(name="f"), Fleet(name="f")))
    with pytest.raises(InvalidRequest, match="two hosts have the id 'h'"):
        Catalogue(fleets=(Fleet(name="f", hosts=(host,)), Fleet(name="g", hosts=(host,))))


def test_ports_and_this_python_take_their_places_in_the_command() -> None:
    application = Application(
        name="a",
        version="1",
        argv=("{python}", "-x", "{port:game}:{port:web}", '{"json": {}}'),
        ports=(AppPort("game"), AppPort("web", "TCP")),
    )

    command = application.command({"game": 30001, "web": 30002})

    assert command == [sys.executable, "-x", "30001:30002", '{"json": {}}']


@pytest.mark.parametrize(
    ("protocol", "kinds"),
    [("UDP", ("udp",)), ("TCP", ("tcp",)), ("TCP/UDP", ("tcp", "udp")), ("WSS", ("tcp",))],
)
def test_a_protocol_says_which_sockets_a_port_takes(protocol: str, kinds: tuple[str]) -> None:
    assert AppPort("game", protocol).socket_kinds == kinds


def test_hidden_values_are_in_no_repr() -> None:
    application = Application(
        name="a", version="1", argv=("x",), hidden_environment={"PASSWORD": "s3cret"}
    )

    assert "s3cret" not in repr(application)


def test_the_sample_application_is_the_game_server_of_this_package() -> None:
    application = sample_application("--never-bind", version="v2")

    assert (application.name, application.version) == ("arena", "v2")
    assert application.ports == (AppPort("game", "UDP"),)
    assert Path(application.argv[2]).is_file()
    assert application.argv[-1] == "--never-bind"


@pytest.mark.parametrize(
    ("kind", "values", "complaint"),
    [
        (Application, {"argv": 5}, "argv must be a list of strings"),
        (Application, {"argv": "sleep 5"}, "argv must be a list of strings"),
        (Application, {"ports": 5}, "Application.ports must be a list"),
        (Application, {"environment": 5}, "Application.environment must be of type Mapping, not 5"),
        (Application, {"hidden_environment": ["A=wrong-kind"]}, "not <class 'list'>"),
        (Application, {"directory": 5}, "Application.directory must be of type str, not 5"),
        (Application, {"is_active": "no"}, "Application.is_active must be of type bool, not 'no'"),
        (Application, {"cpu_units": 1.5}, "Application.cpu_units"),
        (Application, {"cpu_units": None}, "Application.cpu_units"),
        (Application, {"memory_limit_mb": 1.5}, "Application.memory_limit_mb"),
        (Application, {"open_files_limit": 20.5}, "Application.open_files_limit"),
        (Application, {"max_duration": None}, "Application.max_duration"),
        (Application, {"time_to_deploy": None}, "Application.time_to_deploy"),
        (Application, {"image": 5}, "Application.image must be of type str, not 5"),
        (Application, {"private_token": b"wrong-kind"}, "not <class 'bytes'>"),
        (AppPort, {"to_check": "x"}, "AppPort.to_check must be of type bool, not 'x'"),
        (AppPort, {"tls_upgrade": 1}, "AppPort.tls_upgrade must be of type bool, not 1"),
        (Fleet, {"hosts": 5}, "Fleet.hosts must be a list, not 5"),
        (Fleet, {"hosts": None}, "Fleet.hosts must be a list, not None"),
        (PrivateHost, {"cpu_units": None}, "PrivateHost.cpu_units"),
        (Image, {"argv": 5}, "argv must be a list of strings"),
        (Image, {"directory": 5}, "Image.directory must be of type str, not 5"),
        (Simulation, {"seed": "x"}, "Simulation.seed"),
        (Emulator, {"webhook_allow": [5]}, "webhook_allow"),
        (Emulator, {"apps": 5}, "apps"),
        (Emulator, {"fleets": 5}, "fleets"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_name_and_no_secret_is_shown(
    kind: type[Any], values: dict[str, Any], complaint: str
) -> None:
    required: dict[type[Any], dict[str, Any]] = {
        Application: {"name": "arena", "version": "v1", "argv": ["x"]},
        AppPort: {"name": "game"},
        Fleet: {"name": "alpha"},
        PrivateHost: {"host_id": "alpha-1"},
        Image: {"image": "registry.test/arena", "argv": ["x"]},
    }
    with pytest.raises(InvalidRequest, match=complaint) as caught:
        kind(**{**required.get(kind, {}), **values})

    assert "wrong-kind" not in str(caught.value)


@pytest.mark.parametrize("read", [load_apps, check_file, Emulator.from_file])
def test_a_path_that_is_none_is_refused(read: Any) -> None:
    with pytest.raises(InvalidRequest, match="path"):
        read(5)
