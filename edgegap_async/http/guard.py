"""The guard: refuses calls that a program must not make, for programs that run unattended.

Every rule is off by default. The rules hold for every call of a client, and a call that a rule
refuses is not sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import attrs

from edgegap_async.api.messages import HttpRequest
from edgegap_async.api.operations import Operation
from edgegap_async.api.validation import check_list, number
from edgegap_async.api.values import Value
from edgegap_async.errors import DryRun, InvalidRequest, NotAllowed

from .access import is_set

_APPLICATION_FIELDS = frozenset({"application", "application_name", "app", "app_name"})


def _applications_in(value: object) -> Iterator[str]:
    """Yields the names of applications in a body, at any depth."""
    kind: Any = type(value)
    if attrs.has(kind):
        fields = attrs.fields(kind)
        value = {field.name: getattr(value, field.name) for field in fields if field.name != "raw"}
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name in _APPLICATION_FIELDS and isinstance(item, str):
                yield item
            yield from _applications_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _applications_in(item)


def _applications_in_path(operation: Operation[object], path: Mapping[str, str]) -> Iterator[str]:
    """Yields the segments behind `/app/` and `/application/`, as in `/v1/app/{name}/version`."""
    for segment in re.findall(r"/(?:app|application)s?/([^/]+)", operation.path):
        yield str(path.get(segment.strip("{}"), segment))


def _as_names(values: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(values, str):
        raise InvalidRequest("Guard.applications must be a list of names, not a string")
    if values is None:
        return None
    check_list("Guard.applications", values)
    return frozenset(values)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Guard(Value):
    """The rules of one client about what it may not do."""

    read_only: bool = False
    """True to refuse every call that deploys, stops or tags."""
    applications: frozenset[str] | None = attrs.field(default=None, converter=_as_names)
    """Names of the only applications that may be deployed; None for all. A call of your own
    (`client.call`) is refused if its body, or for another method than GET its path, names another
    application."""
    max_live: int | None = attrs.field(
        default=None, validator=number(least=0, whole=True, optional=True)
    )
    """How many deployments of this client may be live at once, 0 or more; None for any number.
    Deployments of an earlier run count that a pool has adopted or `client.recover` has given to the
    program, those that an `idempotency_key` has found, and in a batch deployments in
    ERROR that a 422 names, until they are stopped, and a cancelled deploy until it is undone;
    deployments by `client.deployments.deploy` and `client.private_fleets.deploy` do not. When the
    number is reached, the client checks every ten seconds at most which ones have ended."""
    dry_run: bool = False
    """True to check calls that deploy, stop or tag, also by the other rules, and then to raise
    `DryRun` instead of sending them. Calls that only read are sent."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Returns the rules that the environment sets.

        EDGEGAP_READ_ONLY and EDGEGAP_DRY_RUN are 1 or 0; EDGEGAP_APP_ALLOWLIST is a list of names,
        separated by commas.

        Args:
            environment: the variables, such as `os.environ`.

        Raises:
            InvalidRequest: EDGEGAP_READ_ONLY or EDGEGAP_DRY_RUN has another value.
        """
        names = [name.strip() for name in environment.get("EDGEGAP_APP_ALLOWLIST", "").split(",")]
        return cls(
            read_only=is_set(environment, "EDGEGAP_READ_ONLY"),
            dry_run=is_set(environment, "EDGEGAP_DRY_RUN"),
            applications=list(filter(None, names)) or None,
        )

    def check(
        self,
        operation: Operation[object],
        body: object,
        path: Mapping[str, str] | None = None,
    ) -> None:
        """Checks `read_only` and `applications`.

        Args:
            operation: what is called.
            body: the model that would be sent, or None.
            path: the arguments in the operation's path, by name.

        Raises:
            NotAllowed: a rule refuses the call.
        """
        if self.read_only and operation.method != "GET":
            raise NotAllowed(f"{operation.name} is refused: Guard.read_only is set")
        if self.applications is None:
            return
        named = set(_applications_in(body))
        if operation.method != "GET":  # a program may read of every application
            named.update(_applications_in(path), _applications_in_path(operation, path or {}))
        if refused := named - self.applications:
            allowed = ", ".join(sorted(self.applications))
            names = ", ".join(sorted(refused))
            raise NotAllowed(f"{names} is not in Guard.applications: {allowed}")

    def check_live(self, live: int) -> None:
        """Checks that one more deployment may be created.

        Args:
            live: how many deployments of the client are live, 0 or more.

        Raises:
            NotAllowed: `max_live` is reached.
        """
        if self.max_live is not None and live >= self.max_live:
            raise NotAllowed(f"max_live={self.max_live} reached: {live} deployments are live")

    def check_dry_run(self, request: HttpRequest[object]) -> None:
        """Checks that an encoded request may be sent.

        Raises:
            DryRun: `dry_run` is set, and the request would change something.
        """
        if self.dry_run and (operation := request.operation).method != "GET":
            raise DryRun(
                f"Guard.dry_run is set: {operation.method} {request.path} is not sent",
                operation=operation.name,
                method=operation.method,
                path=request.path,
            )
