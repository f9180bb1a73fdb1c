"""State that survives a restart: deployments, tags, applications, in one SQLite file of a folder.

Each change is one transaction of the database's log, so that a killed emulator leaves the state of
before or after a change and nothing between. Two kinds of value are never written: those of hidden
environment variables, and the tokens that a game server gets. A restored deployment does not need
them, because no game server survives the emulator. The file can be read by its owner only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs

from edgegap_async.api.codec import dumps, read_answer, read_request, to_json
from edgegap_async.api.models import CrashData, Status, Tag
from edgegap_async.api.requests import DeployRequest, FleetDeployRequest
from edgegap_async.errors import InvalidRequest, UnreadableAnswer, log_fields

from .catalogue import Application
from .deployments import LocalDeployment

_log: Final = logging.getLogger(__name__)

_APPLICATION_ID: Final = 0x45474D55  # in the header of the file: this is a state of an emulator
_VERSION: Final = 1  # of the tables and of the records
_MAX_OUTPUT: Final = 65536  # characters of the output of a crashed program
_TABLES: Final = """
CREATE TABLE deployments (
    request_id TEXT PRIMARY KEY, status TEXT NOT NULL, changed_at REAL NOT NULL,
    record TEXT NOT NULL
);
CREATE TABLE applications (name TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE INDEX ended ON deployments (status, changed_at);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_TERMINATED: Final = str(Status.TERMINATED)
# A record of another form fails by its own type, or by that of any of its fields.
_UNREADABLE: Final = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    UnreadableAnswer,
    InvalidRequest,
)

OTHER_FORM: Final = {"city", "host_id", "tags", "changed_at", "crash_output", "has_just_ended"}
"""Fields of a saved deployment that a deployment has in another form, or not at all."""


@attrs.frozen(kw_only=True)
class SavedDeployment:
    """A deployment as the state has it."""

    request_id: str
    """Its id."""
    application: Application
    """The application version that it ran, without hidden values."""
    request: DeployRequest = attrs.field(repr=False)
    """The deploy request, without hidden values."""
    city: str
    """Name of its city."""
    fleet_name: str | None
    """Name of its private fleet; None in the public cloud."""
    host_id: str | None
    """Id of its private host; None in the public cloud."""
    port_numbers: Mapping[str, int]
    """Its port numbers by port name."""
    fqdn: str
    """Its host name."""
    tags: tuple[Tag, ...]
    """Its tags."""
    status: Status
    """Its last status."""
    last_status: Status | None
    """The status before; None at first."""
    error_detail: str | None
    """Why it is in ERROR; None if it is not."""
    created_at: datetime
    """Time of the deploy."""
    ready_at: datetime | None
    """Time of READY; None before."""
    changed_at: datetime
    """Time of the last change of status."""
    removed_at: datetime | None
    """Time of TERMINATED; None before."""
    crash: CrashData | None
    """How its process exited by itself; None if it has not."""
    crash_output: str | None
    """The end of what its process had written when it exited; None if it has not."""
    has_just_ended: bool = False
    """Whether the end of the emulator has ended it, so that its webhook is still to be sent."""

    def ended(self, why: str) -> SavedDeployment:
        """Returns it as it is after the end of the emulator, which ended its process."""
        if self.status in {Status.ERROR, Status.TERMINATED}:
            return self
        now, was_ending = datetime.now(UTC), self.status is Status.TERMINATING
        return attrs.evolve(
            self,
            status=Status.TERMINATED if was_ending else Status.ERROR,
            last_status=self.status,
            error_detail=self.error_detail if was_ending else why,
            changed_at=now,
            removed_at=now if was_ending else None,
            has_just_ended=True,
        )


class State:
    """The state in a folder. One emulator at a time can use it.

    Args:
        folder: the folder; it is made if it does not exist.
        keep_terminated: seconds for which TERMINATED deployments are kept.

    Raises:
        InvalidRequest: another emulator uses the folder, or the file is damaged, is of another
            version or is something else; the file is left as it is.
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: str | Path, *, keep_terminated: float) -> None:
        self._path = Path(folder) / "state.sqlite"
        self._keep_terminated = keep_terminated
        self._unsaved: dict[str, LocalDeployment] = {}
        self._has_failed = False
        with contextlib.ExitStack() as undo:
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(Path(folder) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InvalidRequest(f"state: another emulator uses {folder}") from None
            # SQLite makes its other files with the rights of this one.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(self._path, isolation_level=None)
            undo.callback(self._database.close)
            self._prepare()
            self._undo = undo.pop_all()

    def _prepare(self) -> None:
        with self.readable():
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            (made_by,) = self._database.execute("PRAGMA application_id").fetchone()
            tables = self._database.execute("SELECT name FROM sqlite_master").fetchall()
        if tables and (made_by, version) != (_APPLICATION_ID, _VERSION):
            what = (
                f"of version {version}, and this emulator reads version {_VERSION}"
                if made_by == _APPLICATION_ID
                else "no state of an emulator"
            )
            raise InvalidRequest(
                f"state: {self._path} is {what}: name another folder, or move the file away"
            )
        with self.readable():
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            if not tables:
                self._database.executescript(
                    f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION_ID};"
                    f" PRAGMA user_version = {_VERSION}; COMMIT;"
                )
            (found,) = self._database.execute("PRAGMA quick_check").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)

    @contextlib.contextmanager
    def readable(self) -> Iterator[None]:
        """Raises `InvalidRequest` in place of errors of a damaged file."""
        try:
            yield
        except (sqlite3.Error, *_UNREADABLE) as problem:
            raise InvalidRequest(
                f"state: {self._path} is damaged ({problem}): name another folder, or move the"
                " file away"
            ) from None

    # ── read ─────────────────────────────────────────────────────────────────────────────────────

    def read(self) -> list[SavedDeployment]:
        """Returns the deployments, oldest first, as they are after the end of the emulator.

        Raises:
            InvalidRequest: the file is damaged.
        """
        with self.readable():
            closed = self._database.execute("DELETE FROM facts WHERE name = 'closed'").rowcount
            why = "the emulator was closed" if closed else "the emulator was killed"
            rows = self._database.execute(
                "SELECT record FROM deployments WHERE NOT (status = ? AND changed_at < ?)"
                " ORDER BY rowid",
                (_TERMINATED, self._oldest),
            ).fetchall()
            return [_saved(json.loads(record)).ended(why) for (record,) in rows]

    def read_applications(self) -> list[dict[str, Any]]:
        """Returns the records of applications, in the order in which they were created.

        Raises:
            InvalidRequest: the file is damaged.
        """
        with self.readable():
            rows = self._database.execute("SELECT record FROM applications ORDER BY rowid")
            return [json.loads(record) for (record,) in rows.fetchall()]

    @property
    def _oldest(self) -> float:
        return datetime.now(UTC).timestamp() - self._keep_terminated

    # ── write ────────────────────────────────────────────────────────────────────────────────────

    def save(self, deployment: LocalDeployment, _: object = None) -> None:
        """Saves a deployment as it is now. A failure is logged, and the next save tries again."""
        self._unsaved[deployment.request_id] = deployment
        rows = [_row(one) for one in self._unsaved.values()]

        def write() -> None:
            self._database.executemany(
                "INSERT INTO deployments VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " status = excluded.status, changed_at = excluded.changed_at,"
                " record = excluded.record",
                rows,
            )
            if deployment.status is Status.TERMINATED:
                self._database.execute(
                    "DELETE FROM deployments WHERE status = ? AND changed_at < ?",
                    (_TERMINATED, self._oldest),
                )

        if self._write(write):
            self._unsaved.clear()

    def save_applications(self, records: Mapping[str, str]) -> None:
        """Saves the records of all applications, by name, in place of those before."""

        def write() -> None:
            self._database.execute("DELETE FROM applications")
            self._database.executemany("INSERT INTO applications VALUES (?, ?)", records.items())

        self._write(write)

    def clear(self) -> None:
        """Forgets all deployments and applications."""
        self._unsaved.clear()
        self._write(lambda: self._database.execute("DELETE FROM deployments"))
        self._write(lambda: self._database.execute("DELETE FROM applications"))

    def _write(self, write: Callable[[], object]) -> bool:
        """Runs a transaction. Returns whether it was written."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                write()
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as problem:
            if not self._has_failed:
                _log.error(
                    "the state in %s cannot be written: %s",
                    self._path,
                    problem,
                    extra=log_fields(problem, path=str(self._path)),
                )
            self._has_failed = True
            return False
        if self._has_failed:
            self._has_failed = False
            _log.warning(
                "the state in %s is written again",
                self._path,
                extra=log_fields(path=str(self._path)),
            )
        return True

    def close(self) -> None:
        """Closes the file, after which another emulator can use the folder."""
        closed = "INSERT OR REPLACE INTO facts VALUES ('closed', '')"
        self._write(lambda: self._database.execute(closed))
        self._undo.close()


# ── records ──────────────────────────────────────────────────────────────────────────────────────


def _row(deployment: LocalDeployment) -> tuple[str, str, float, str]:
    changed_at = deployment.clock.now() - timedelta(seconds=deployment.seconds_in_status)
    record = json.dumps(_record(deployment, changed_at), ensure_ascii=False, default=_json_value)
    return (deployment.request_id, str(deployment.status), changed_at.timestamp(), record)


def application_record(application: Application) -> dict[str, Any]:
    """Returns an application version with values of JSON types, without hidden values."""
    record = json.loads(dumps(attrs.asdict(application)))
    return {**record, "hidden_environment": {}, "private_username": None, "private_token": None}


def _record(deployment: LocalDeployment, changed_at: datetime) -> dict[str, Any]:
    request = to_json(deployment.request)
    variables = request.get("environment_variables", [])
    request["environment_variables"] = [one for one in variables if not one["is_hidden"]]
    crash_output = deployment.crash_output
    names = {field.name for field in attrs.fields(SavedDeployment)}
    return {
        **{name: getattr(deployment, name) for name in names - OTHER_FORM},
        "application": application_record(deployment.application),
        "request": request,
        "city": deployment.location.city,
        "host_id": None if deployment.host is None else deployment.host.host_id,
        "tags": list(deployment.tags.values()),
        "changed_at": changed_at,
        "crash_output": None if crash_output is None else crash_output[-_MAX_OUTPUT:],
    }


def _json_value(value: object) -> Any:
    return value.isoformat() if isinstance(value, datetime) else to_json(value)


def _saved(record: dict[str, Any]) -> SavedDeployment:
    last_status, crash = record["last_status"], record["crash"]
    kind = FleetDeployRequest if "private_host_ids" in record["request"] else DeployRequest
    times = {
        name: None if record[name] is None else datetime.fromisoformat(record[name])
        for name in ("created_at", "ready_at", "changed_at", "removed_at")
    }
    models: dict[str, Any] = {
        "application": read_request(Application, dumps(record["application"])),
        "request": read_request(kind, dumps(record["request"])),
        "tags": tuple(read_answer(Tag, dumps(tag)) for tag in record["tags"]),
        "status": Status(record["status"]),
        "last_status": None if last_status is None else Status(last_status),
        "crash": None if crash is None else read_answer(CrashData, dumps(crash)),
    }
    return SavedDeployment(**{**record, **models, **times})
