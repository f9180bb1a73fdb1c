"""What a program may not do, however it asks: rails for programs that run unattended.

All are off by default. They hold for every call of a client, and nothing is sent that they refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import attrs

from edgegap_async.api.messages import HttpRequest
from edgegap_async.api.operations import Operation
from edgegap_async.errors import DryRun, InvalidRequest, NotAllowed

__all__ = ["Guard"]

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"", "0", "false", "no", "off"})


def _names(values: Iterable[str] | None) -> frozenset[str] | None:
    if isinstance(values, str):
        raise InvalidRequest("Guard.applications is a list of names, not one text")
    return None if values is None else frozenset(values)


def _count(_self: object, _: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (type(value) is not int or value < 0):
        raise InvalidRequest(f"Guard.max_live is a number from 0 on, not {value!r}")


def _is_yes(environment: Mapping[str, str], name: str) -> bool:
    said = environment.get(name, "").strip().lower()
    if said not in _YES | _NO:
        raise InvalidRequest(f"{name} is 1 or 0, not {said!r}")
    return said in _YES


@attrs.frozen(kw_only=True)
class Guard:
    """The rails of one client."""

    read_only: bool = False
    """Nothing is deployed, stopped or tagged."""
    applications: frozenset[str] | None = attrs.field(default=None, converter=_names)
    """The only applications that may be deployed; None for all."""
    max_live: int | None = attrs.field(default=None, validator=_count)
    """How many deployments of this client may live at once; None for any number. Those of the bare
    calls, such as `client.deployments.deploy`, are not counted. Where there are as many, some calls
    find out, each ten seconds at most, which have ended by themselves."""
    dry_run: bool = False
    """What would deploy, stop or tag is checked as ever, by the other rails too, and then not sent:
    it raises `DryRun`. What only looks is sent."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The rails that EDGEGAP_READ_ONLY, EDGEGAP_DRY_RUN and EDGEGAP_APP_ALLOWLIST set up.

        The first two are 1 or 0, the third is names with commas between them.

        Raises:
            InvalidRequest: one of the first two is neither a yes nor a no.
        """
        names = [name.strip() for name in environment.get("EDGEGAP_APP_ALLOWLIST", "").split(",")]
        return cls(
            read_only=_is_yes(environment, "EDGEGAP_READ_ONLY"),
            dry_run=_is_yes(environment, "EDGEGAP_DRY_RUN"),
            applications=list(filter(None, names)) or None,
        )

    def check(self, operation: Operation[object], body: object) -> None:
        """Returns if the call may be made.

        Raises:
            NotAllowed: it may not.
        """
        if self.read_only and operation.method != "GET":
            raise NotAllowed(f"{operation.name}: this client is read-only")
        application = getattr(body, "application", None)
        if self.applications is not None and application not in {None, *self.applications}:
            allowed = ", ".join(sorted(self.applications))
            raise NotAllowed(f"{application} may not be deployed; only {allowed} may")

    def check_live(self, live: int) -> None:
        """Returns if one more may be deployed beside so many.

        Raises:
            NotAllowed: it may not.
        """
        if self.max_live is not None and live >= self.max_live:
            raise NotAllowed(f"{live} deployments live, and {self.max_live} are the most")

    def check_dry_run(self, request: HttpRequest[object]) -> None:
        """Returns if a request that is ready to go may go.

        Raises:
            DryRun: it may not.
        """
        if self.dry_run and (operation := request.operation).method != "GET":
            raise DryRun(
                f"dry run: {operation.method} {request.path} is not sent",
                operation=operation.name,
                method=operation.method,
                path=request.path,
            )
