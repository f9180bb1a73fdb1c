"""The TOML file: applications, images, fleets, `[settings]`, `[[faults]]`, and what is wrong.

`[settings]` has the arguments of `Emulator` by their names. What TOML has no type for is written
so: `timings = "fast"` or a table, `port_range = [30000, 32767]` with the last port, `simulate =
true` or a table, `limits = false` or a table in which `false` stands for no limit, `"never"` for
None. Each problem names the file, the line, the place, and what would be right.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, get_args

import attrs

from edgegap_async.api.codec import read_request
from edgegap_async.api.validation import check_kind, needs_package, unknown_name
from edgegap_async.errors import InvalidRequest

from .catalogue import Application, Catalogue, Fleet, Image
from .connections import Deadlines
from .fault_tables import faults_from_tables
from .faults import Fault
from .rate_limits import RateLimits
from .simulation import Simulation
from .timings import Timings

_TABLES: Final[Mapping[str, type[Any]]] = {
    "applications": Application,
    "images": Image,
    "fleets": Fleet,
}
_KEYS: Final = (*_TABLES, "settings", "faults")
_HEADER: Final = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?")
_KEY: Final = re.compile(r"""\s*([\w-]+|"[^"]*"|'[^']*')\s*[.=]""")
_PROBLEM: Final = re.compile(
    r"""(.*?)\ @\ \$((?:\.\w+|\['.*?'\]|\[".*?"\])*)(?:;\ |\Z)""", re.DOTALL | re.VERBOSE
)
"""A problem that the strict reader has found, and its place."""
_EXTRA: Final = re.compile(r"extra fields found \((.*)\)", re.DOTALL)
_STRING_OR_COMMENT: Final = re.compile(
    r"""
    (?P<lines> \"{3} (?:\\.|[^\\])*? \"{3,5} | '{3} .*? '{3,5} )
    | " (?:\\.|[^"\\\n])* " | ' [^'\n]* '
    | (?P<comment> \#[^\n]* )
    """,
    re.DOTALL | re.VERBOSE,
)


class EmulatorSettings(TypedDict, total=False):
    """The arguments of `Emulator` besides `apps`, by name; `Emulator` says what each is."""

    token: str | None
    host: str
    allowed_hosts: Iterable[str]
    deadlines: Deadlines
    port: int
    fleets: Iterable[Fleet]
    images: Iterable[Image]
    timings: Timings
    limits: RateLimits
    max_deployments: int | None
    port_range: range
    port_reuse_delay: float
    engine: str | None
    fqdn: str
    player_locations: Mapping[str, tuple[float, float]] | None
    webhook_allow: Iterable[str]
    webhook_timeout: float
    metrics_interval: float
    keep_terminated: float
    keep_errors: float | None
    list_delay: float
    location_capacity: Mapping[str, int] | None
    seed: int
    unknown_id_status: Literal[400, 404]
    host_shape: Literal["pin", "centroid"]
    list_has_status: bool
    list_accepts_filters: bool
    list_includes_errors: bool
    round_trip_time: tuple[float, float]
    state: str | Path | None
    simulate: Simulation | None
    faults: Iterable[Fault]


SETTINGS: Final = sorted(
    EmulatorSettings.__annotations__.keys() - {"token", "fleets", "images", "faults"}
)
"""The keys of `[settings]`: the arguments of `Emulator` but the token, which is no matter for a
file that is shared, and what has tables of its own."""


@attrs.frozen
class Problem:
    """Something that is wrong in a file."""

    path: str
    """Path of the file."""
    line: int | None
    """Number of the line, from 1; None if the whole file is meant."""
    place: str
    """The table and the key, such as `applications[0].ports`; empty for the whole file."""
    message: str
    """What is wrong, and what would be right."""
    is_error: bool = True
    """Whether the file cannot be used; False if the emulator starts with it all the same."""

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return f"{self.path}{line}: {self.place}: {self.message}".replace(": : ", ": ")


@attrs.frozen
class SettingsFile:
    """What a file has."""

    catalogue: Catalogue = Catalogue()
    """What can be deployed."""
    faults: tuple[Fault, ...] = ()
    """The scripted faults of its tables."""
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    """The arguments of `Emulator` that it has."""
    problems: tuple[Problem, ...] = ()
    """What is wrong in it."""
    find_line: Callable[[str], int | None] = lambda _: None
    """Returns the line of a place such as `settings.port`."""


class _Lines:
    """The lines of tables and keys, which `tomllib` does not tell."""

    def __init__(self, text: str) -> None:
        self._lines: dict[str, int] = {}
        counts: dict[str, int] = {}
        table = ""
        bare = _STRING_OR_COMMENT.sub(_without_lines, text)
        for number, line in enumerate(bare.split("\n"), start=1):
            header = _HEADER.fullmatch(line)
            if header:
                *parents, last = (part.strip().strip("\"'") for part in header[1].split("."))
                table = ""
                for part in parents:
                    table = f"{table}.{part}" if table else part
                    table += f"[{counts[table]}]" if table in counts else ""
                table = f"{table}.{last}" if table else last
                if line.lstrip().startswith("[["):
                    counts[table] = counts.get(table, -1) + 1
                    table += f"[{counts[table]}]"
                self._add(table, number)
            elif key := _KEY.match(line):
                name = key[1].strip("\"'")
                self._add(f"{table}.{name}" if table else name, number)

    def _add(self, place: str, number: int) -> None:
        self._lines.setdefault(place, number)
        # The reader of a table does not tell which of the tables in it is meant.
        self._lines.setdefault(re.sub(r"(?<=\w)\[\d+\](?=(\.[^.]*)?$)", "", place), number)

    def find(self, place: str) -> int | None:
        """Returns the line of a place, or of the nearest thing around it that has a line."""
        while place:
            if place in self._lines:
                return self._lines[place]
            place = re.sub(r"(\[\d+\]|\.?[^.\[\]]+|.)\Z", "", place, flags=re.DOTALL)
        return None


def _without_lines(found: re.Match[str]) -> str:
    """Returns a string or comment without what is no key or header in it; lines stay lines."""
    return "\n" * found[0].count("\n") if found["lines"] or found["comment"] else found[0]


def read_file(path: str | Path) -> SettingsFile:
    """Reads a file, and finds what is wrong in it.

    Raises:
        InvalidRequest: the path is no path.
    """
    check_kind("path", path, str, Path)
    name = str(path)
    try:
        text = Path(path).read_text("utf-8-sig")  # editors of Windows write a byte order mark
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        line = re.search(r"line (\d+)", str(problem))
        return SettingsFile(
            problems=(Problem(name, int(line[1]) if line else None, "", str(problem)),)
        )
    except (OSError, UnicodeDecodeError, RecursionError) as problem:
        return SettingsFile(problems=(Problem(name, None, "", str(problem)),))
    return _Reader(name, Path(path).resolve().parent, text).read(tables)


def load_file(path: str | Path) -> SettingsFile:
    """Reads a file that is right.

    Raises:
        InvalidRequest: something is wrong in it; the message names each problem.
    """
    file = read_file(path)
    errors = [str(problem) for problem in file.problems if problem.is_error]
    if errors:
        raise InvalidRequest("\n".join(errors))
    return file


def load_apps(path: str | Path) -> Catalogue:
    """Reads the applications, images and fleets of a TOML file.

    Args:
        path: path of the file.

    Raises:
        InvalidRequest: the file cannot be read, or has an unknown or wrong field; says which.
    """
    return load_file(path).catalogue


class _Reader:
    def __init__(self, path: str, folder: Path, text: str) -> None:
        self._path = path
        self._folder = folder
        self._lines = _Lines(text)
        self._problems: list[Problem] = []

    def _add(self, place: str, message: str, *, is_error: bool = True) -> None:
        line = self._lines.find(place)
        place = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in place)
        self._problems.append(Problem(self._path, line, place, message, is_error))

    def read(self, tables: dict[str, Any]) -> SettingsFile:
        for name in tables:
            if name not in _KEYS:
                self._add(name, f"unknown; {unknown_name(name, _KEYS)}")
        found = {name: self._read_each(name, tables.get(name, [])) for name in _TABLES}
        for name in ("applications", "images"):
            found[name] = [(at, self._with_directory(at, one)) for at, one in found[name]]
        catalogue = Catalogue()
        try:
            catalogue = Catalogue(
                **{name: tuple(one for _, one in values) for name, values in found.items()}
            )
        except InvalidRequest as problem:
            self._add("applications", problem.message)
        faults = self._read_faults(tables.get("faults", []))
        settings = self._read_settings(tables.get("settings", {}))
        return SettingsFile(catalogue, faults, settings, tuple(self._problems), self._lines.find)

    def _with_directory(self, place: str, one: Application | Image) -> Application | Image:
        """Returns an entry whose directory is an absolute path, unless it is in an image."""
        if one.runs_image:
            if importlib.util.find_spec("aiodocker") is None:
                self._add(place, needs_package("a container", "aiodocker"), is_error=False)
            return one
        directory = str(self._folder / (one.directory or "."))
        if not Path(directory).is_dir():
            self._add(f"{place}.directory", f"there is no folder {directory!r}", is_error=False)
        self._check_program(f"{place}.argv", one.argv[0], directory)
        return attrs.evolve(one, directory=directory)

    def _read_faults(self, tables: object) -> tuple[Fault, ...]:
        if not isinstance(tables, list):
            self._add("faults", "write [[faults]] once for each fault")
            return ()
        try:
            return faults_from_tables(tables)
        except InvalidRequest as problem:
            match = re.match(r"(faults\[\d+\]): ", problem.message)
            place = match[1] if match else "faults"
            self._add(place, problem.message.removeprefix(f"{place}: "))
        return ()

    def _read_each(self, name: str, tables: object) -> list[tuple[str, Any]]:
        if not isinstance(tables, list):
            self._add(name, f"write [[{name}]] once for each of {name}")
            return []
        found = []
        for position, table in enumerate(tables):
            place = f"{name}[{position}]"
            try:
                # As JSON: the strict reader of requests also checks this.
                found.append((place, read_request(_TABLES[name], _as_json(table), "the table")))
            except InvalidRequest as problem:
                self._explain(place, _TABLES[name], str(problem))
        return found

    def _explain(self, place: str, kind: type[Any], text: str) -> None:
        """Adds the problems that the strict reader has found in a table."""
        for message, path in _PROBLEM.findall(text) or [(text, "")]:
            names = [one.strip(".[]'\"") for one in re.findall(r"\.\w+|\[.*?\](?=[.\[]|\Z)", path)]
            where = ".".join((place, *names))
            within, is_secret = _kind_at(kind, names)
            known = [field.name for field in attrs.fields(within)]
            of_field = re.match(r"[A-Z]\w+\.(\w+) ", message)  # "AppPort.protocol is one of …"
            where += f".{of_field[1]}" if of_field and of_field[1] in known else ""
            extra = _EXTRA.fullmatch(message)
            if not extra:
                self._add(where, message.partition(", not ")[0] if is_secret else message)
                continue
            for name in extra[1].split(", "):
                self._add(f"{where}.{name}", f"unknown; {unknown_name(name, known)}")

    def _check_program(self, place: str, program: str, directory: str) -> None:
        program = program.replace("{python}", sys.executable)
        if os.sep in program:
            found = shutil.which(str(Path(directory) / program))
        else:
            found = shutil.which(program)
        if found is None:
            self._add(
                place,
                f"there is no program {program!r}: a path is relative to {directory}, a name is"
                " searched in PATH; the file must be executable",
                is_error=False,
            )

    def _read_settings(self, table: object) -> dict[str, Any]:
        if not isinstance(table, dict):
            self._add("settings", "write [settings] once")
            return {}
        settings: dict[str, Any] = {}
        for name, value in table.items():
            place = f"settings.{name}"
            if name not in SETTINGS:
                self._add(place, f"unknown; {unknown_name(name, SETTINGS)}")
                continue
            try:
                settings[name] = _READERS.get(name, _plain)(value)
            except InvalidRequest as problem:
                self._add(place, problem.message)
        if isinstance(settings.get("state"), str):
            settings["state"] = str(self._folder / settings["state"])
        return settings


def _kind_at(kind: type[Any], names: Iterable[str]) -> tuple[type[Any], bool]:
    """Returns the class of the table at a place inside a table, and whether secrets are there."""
    for name in names:
        attrs.resolve_types(kind)
        field = attrs.fields_dict(kind).get(name)
        if field is None or not field.repr:
            return kind, field is not None
        inner = [part for part in get_args(field.type) if attrs.has(part)]
        kind = inner[0] if inner else kind
    return kind, False


def _as_json(table: object) -> bytes:
    """Returns a table as JSON, in which a date or a time is an object: no key takes one."""
    return json.dumps(table, default=lambda value: {"time": str(value)}).encode()


# ── settings that TOML has no type for ───────────────────────────────────────────────────────────


def _plain(value: object) -> object:
    return None if value == "never" else value


def _table(value: object) -> dict[str, Any]:
    """Returns a table with tuples in place of lists."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"a table is needed, not {value!r}")
    return {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}


def _build(kind: type[Any], value: object) -> Any:
    table = _table(value)
    known = [field.name for field in attrs.fields(kind)]
    for name in table:
        if name not in known:
            raise InvalidRequest(f"{name}: unknown; {unknown_name(name, known)}")
    return kind(**table)


def _port_range(value: object) -> range:
    ends = value if isinstance(value, list) else []
    if [type(end) for end in ends] != [int, int] or ends[0] > ends[1]:
        raise InvalidRequest(
            f"the first and the last port are needed, such as [30000, 32767], not {value!r}"
        )
    return range(ends[0], ends[1] + 1)


def _simulate(value: object) -> Simulation | None:
    if value is False:
        return None
    return Simulation() if value is True else _build(Simulation, value)


def _limits(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {name: None if rate is False else rate for name, rate in value.items()}


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "deadlines": lambda value: _build(Deadlines, value),
    "limits": _limits,
    "player_locations": _table,
    "port_range": _port_range,
    "round_trip_time": lambda value: tuple(value) if isinstance(value, list) else value,
    "simulate": _simulate,
    "timings": lambda value: Timings.fast() if value == "fast" else _build(Timings, value),
}
