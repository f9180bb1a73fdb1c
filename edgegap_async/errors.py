"""Every error this package raises.

::

    EdgegapError
    ├── InvalidRequest (also a ValueError)   what you passed cannot be sent; nothing was
    ├── NotAllowed                           a rail of the client's `Guard` refuses it
    │   └── DryRun                           it is all right, and would have been sent
    ├── ClientClosed                         the client was closed, or closed while you waited
    ├── WrongLoop                            the client belongs to another event loop
    ├── PoolEmpty                            a `ServerPool` has no READY server to give
    ├── CallError                            one call to the API did not succeed
    │   ├── NotSent                          it never reached the API: no server was made
    │   │   └── LimitReached                 its turn would come later than it may wait
    │   ├── NoAnswer                         it went out and no answer came: nobody knows
    │   │   └── MaybeCreated                 a deployment may exist; its tag finds it
    │   ├── UnreadableAnswer                 an answer came that cannot be used
    │   └── Refused                          the API answered with an error status
    │       ├── BadRequest            400
    │       ├── Unauthorized          401
    │       ├── Forbidden             403
    │       ├── NotFound              404, and 400 where a call only names an id
    │       ├── Conflict              409
    │       ├── Gone                  410
    │       ├── Unprocessable         422, with the `request_id` of what it made nonetheless
    │       ├── RateLimited           429, with `retry_after`
    │       └── ServerError           5xx
    └── DeploymentError                      the calls went well, the deployment did not
        ├── WaitTimedOut (also a TimeoutError)
        ├── DeploymentFailed                 it is in Status.ERROR
        ├── DeploymentTerminated             it ended before it was READY
        ├── NotPlayable                      it is READY, and its game does not answer
        └── BatchStopped                     another one's failure has stopped the batch

A class exists where a caller would act differently. No aiohttp exception leaves the package.
No error holds the API token, a header, or a query string.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

if TYPE_CHECKING:
    from .api.models import Deployment, Logs, Status, StatusChange

    class _Observed(Protocol):
        @property
        def request_id(self) -> str: ...
        @property
        def status(self) -> Status | None: ...
        @property
        def history(self) -> tuple[StatusChange, ...]: ...
        @property
        def deployment(self) -> Deployment | None: ...


__all__ = [
    "BadRequest",
    "BatchStopped",
    "CallError",
    "ClientClosed",
    "Conflict",
    "DeploymentError",
    "DeploymentFailed",
    "DeploymentTerminated",
    "DryRun",
    "EdgegapError",
    "Forbidden",
    "Gone",
    "InvalidRequest",
    "LimitReached",
    "MaybeCreated",
    "NoAnswer",
    "NotAllowed",
    "NotFound",
    "NotPlayable",
    "NotSent",
    "PoolEmpty",
    "RateLimited",
    "Refused",
    "ServerError",
    "Unauthorized",
    "Unprocessable",
    "UnreadableAnswer",
    "WaitTimedOut",
    "WrongLoop",
    "is_cancelled",
    "refusal",
]


class EdgegapError(Exception):
    """Anything that went wrong in this package: the one class to catch for all of it."""

    advice: ClassVar[str] = ""
    """What to do next, in a sentence; the last part of the message."""

    stopped: bool = False
    """Whether its deployment was stopped because of it: by `run`, a batch or a pool."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """What happened, in the API's words where it used any."""
        return str(self.args[0]) if self.args else ""

    def _facts(self) -> str:
        return ""

    def _advice(self) -> str:
        return self.advice

    def __str__(self) -> str:
        advice = "It was stopped" if self.stopped else self._advice()
        parts = (self._facts(), self.message, advice)
        return ". ".join(part.rstrip(". ") for part in parts if part)


class InvalidRequest(EdgegapError, ValueError):
    """What you passed cannot be sent. Nothing was sent."""


class NotAllowed(EdgegapError):
    """A rail of the client's `Guard` refuses it. Nothing was sent."""

    advice = "Change the client's guard if it is to be allowed"


class DryRun(NotAllowed):
    """It could be sent as it is, and was not: the client's `Guard` has `dry_run`.

    Attributes:
        operation: name of the call, such as `deploy`.
        method: HTTP method.
        path: path of the URL that it would have gone to.
    """

    advice = "Take dry_run off the client's guard to send it"

    def __init__(
        self, message: str = "", *, operation: str = "", method: str = "", path: str = ""
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.method = method
        self.path = path


class ClientClosed(EdgegapError):
    """The client is closed, or was closed while this call waited."""

    advice = "Make calls inside `async with EdgegapClient()`, or before `close()`"


class WrongLoop(EdgegapError):
    """The client is used in another event loop than before: another thread's, a fork's, a new one.

    Its connections and all that wait in it belong to the loop that it was first used in.
    """

    advice = "Make one client for each event loop"


class PoolEmpty(EdgegapError):
    """A `ServerPool` has no READY server, and none came in time or none can be had.

    `__cause__` is why the last deploy failed, if that is why.

    Attributes:
        is_over: whether the pool has ended, and there will never be one.
    """

    advice = "See pool.stats: more servers (max_total), more time, or what the last failure says"

    is_over: bool = False

    def _advice(self) -> str:
        return "" if self.is_over else self.advice


class CallError(EdgegapError):
    """One call to the API did not succeed.

    Attributes:
        operation: name of the call, such as `get_deployment`.
        method: HTTP method.
        path: path of the URL, without query.
        status: HTTP status of the answer, or None if there was none.
        request_id: the deployment that the call was about, or that the answer names.
        attempts: how many times the request was tried, 1 or more.
        waited: seconds that were waited between the attempts; of a deploy, also for what a lost
            answer may have made to show up.
        operation_tag: the tag that names the wish, for a deploy by `client.deploy` or `run`.
        maybe_created: whether a deployment may exist that nobody has the id of.
    """

    waited: float = 0.0
    operation_tag: str | None = None
    maybe_created: bool = False

    def __init__(
        self,
        message: str = "",
        *,
        operation: str = "",
        method: str = "",
        path: str = "",
        status: int | None = None,
        request_id: str | None = None,
        attempts: int = 1,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.method = method
        self.path = path
        self.status = status
        self.request_id = request_id
        self.attempts = attempts

    def _facts(self) -> str:
        parts = [f"{self.method} {self.path}".strip()]
        if self.status is not None:
            parts.append(f"answered {self.status}")
        if self.request_id and self.request_id not in self.path:
            parts.append(f"(request_id {self.request_id})")
        if self.attempts > 1:
            parts.append(f"after {self.attempts} attempts")
        return " ".join(part for part in parts if part)


class NotSent(CallError):
    """The request never reached the API, so nothing was made or changed by it.

    Attributes:
        retry_may_help: False where the same request would fail the same way, as with a
            certificate that does not match.
    """

    advice = "Nothing was sent: check the network and base_url, then try again"

    retry_may_help: bool = True


class LimitReached(NotSent):
    """The client's own limits would let the call go later than it may wait. Nothing was sent.

    Only with `on_limit="raise"` or a `longest_wait`; otherwise calls wait for their turn.

    Attributes:
        predicted_wait: seconds after which its turn would have come, as far as can be told.
    """

    advice = "Nothing was sent: try again later, or let it wait longer"

    retry_may_help = False  # by the client; whoever asked not to wait decides
    predicted_wait: float = 0.0


class NoAnswer(CallError):
    """The request went out and no usable answer came back: nobody knows what the API did."""

    advice = "The API may have acted on it: look before you repeat"

    def _advice(self) -> str:
        return "Nothing was changed by it: try again" if self.method == "GET" else self.advice


class MaybeCreated(NoAnswer):
    """A deploy was sent, and nobody could find out whether it made a deployment.

    `operation_tag` is on it, if it exists: `Filter("tags", "in", [error.operation_tag])`.
    """

    advice = "It may exist and be billed: client.recover(error.operation_tag) finds it later"

    def _facts(self) -> str:
        return f"{super()._facts()} (tag {self.operation_tag})"


class UnreadableAnswer(CallError):
    """An answer came that cannot be used: not JSON, too large, a redirect, no `request_id`."""

    advice = "Is base_url the Edgegap API, with no proxy that answers in its place?"


class Refused(CallError):
    """The API answered with an error status."""


class BadRequest(Refused):
    """400: the API does not accept what was sent. No deployment was created."""

    advice = "Check the arguments"

    def _advice(self) -> str:
        is_deploy = self.operation.startswith("deploy")
        return "Check that the application and version exist" if is_deploy else self.advice


class Unauthorized(Refused):
    """401: the API does not know the token."""

    advice = "Check EDGEGAP_API_TOKEN: it is sent as `token …`, with or without that word in it"

    def _advice(self) -> str:
        own = "Check that the token is this deployment's ARBITRIUM_DELETE_TOKEN"
        return own if self.operation == "stop_self" else self.advice


class Forbidden(Refused):
    """403: the token is known and may not do this."""

    advice = "The token may not do this: use one of the organization that owns it"


class NotFound(Refused):
    """There is no such deployment, tag or page: 404, or 400 where a call only names an id.

    The live API answers 400 `Bad Request ID provided` for an id that it does not know.
    """

    advice = "It never existed, or it was stopped and forgotten"

    def _advice(self) -> str:
        names_nothing = "Check base_url: there is no such call"
        return self.advice if self.request_id else names_nothing


class Conflict(Refused):
    """409: it exists already."""

    advice = "It exists already: use it, or choose another name"


class Gone(Refused):
    """410: the deployment was terminated before."""

    advice = "It is terminated: nothing is left to do"


class Unprocessable(Refused):
    """422: understood, and not possible.

    For a deploy `request_id` names a deployment **that was created**, in Status.ERROR: stop it.
    """

    advice = "Check the arguments"

    def _advice(self) -> str:
        if self.request_id and self.operation.startswith("deploy"):
            return f"Stop {self.request_id}: it was created, and is in error"
        return self.advice


class RateLimited(Refused):
    """429: more calls than the organization may make.

    Attributes:
        retry_after: seconds that the API asked to wait (0 to 60), or None if it did not say.
    """

    advice = "Wait, then try again; lower `limits` if other programs share the organization's limit"

    retry_after: float | None = None


class ServerError(Refused):
    """5xx: the API, or a proxy before it, failed. A deploy may have been accepted."""

    advice = "Try again later"

    def _advice(self) -> str:
        return f"{self.advice}; look before you repeat it" if self.maybe_created else self.advice


class DeploymentError(EdgegapError):
    """The calls went well, the deployment did not.

    Attributes:
        request_id: which deployment.
        last_status: the newest status that was seen, or None if none was.
        history: the statuses that were seen, each with its time, oldest first.
        deployment: the newest full look at it, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        request_id: str = "",
        last_status: Status | None = None,
        history: tuple[StatusChange, ...] = (),
        deployment: Deployment | None = None,
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.last_status = last_status
        self.history = history
        self.deployment = deployment

    @classmethod
    def of(cls, observed: _Observed, message: str = "") -> Self:
        """The error with what is known of a deployment.

        Args:
            observed: a `DeploymentHandle`, or another object with its `request_id`, `status`,
                `history` and `deployment`.
            message: what happened.
        """
        return cls(
            message,
            request_id=observed.request_id,
            last_status=observed.status,
            history=observed.history,
            deployment=observed.deployment,
        )

    def _facts(self) -> str:
        if not self.request_id:
            return ""
        seen = " → ".join(change.status.short for change in self.history)
        return f"deployment {self.request_id}" + (f" ({seen})" if seen else "")


class WaitTimedOut(DeploymentError, TimeoutError):
    """The deployment did not get there in time. It still exists: stop it or wait again."""

    advice = "It still exists and is billed: wait again, or stop it"

    def _advice(self) -> str:
        if not self.request_id:  # then there is none
            return ""
        nobody_saw_it = "It may exist and be billed: wait again, or stop it"
        return self.advice if self.last_status else nobody_saw_it


class DeploymentFailed(DeploymentError):
    """The deployment is in Status.ERROR. It still exists, with its logs, until it is stopped.

    Attributes:
        logs: what its container wrote and how it crashed, where it was asked: by `client.run`.
    """

    advice = "Read its logs, then stop it"

    logs: Logs | None = None

    @property
    def error_detail(self) -> str:
        """Why, in the API's words; empty if it did not say."""
        return (self.deployment and self.deployment.error_detail) or ""

    @property
    def exit_code(self) -> int | None:
        """How the game server's process ended; None if that is not known."""
        crash = self.logs and self.logs.crash_data
        return crash.exit_code if crash else None

    @property
    def last_lines(self) -> str:
        """The last ten lines that it wrote; empty if they are not known."""
        written = (self.logs and (self.logs.crash_logs or self.logs.logs)) or ""
        return "\n".join(written.splitlines()[-10:])

    def __str__(self) -> str:
        if self.logs is None:
            return super().__str__()
        parts = [f"deployment {self.request_id} failed: {self.message}"]
        if self.exit_code is not None:
            parts.append(f"exit code {self.exit_code}")
        if self.last_lines:
            parts.append(f"its last lines:\n{self.last_lines}")
        return "; ".join(parts)


class DeploymentTerminated(DeploymentError):
    """The deployment ended before what you waited for came."""

    advice = "It is over: deploy another"


class NotPlayable(DeploymentError):
    """It is READY, and the check of whether players can play did not succeed in time.

    It still exists. `__cause__` is how the last attempt failed.

    Attributes:
        attempts: how many times it was tried.
    """

    advice = "It still exists and is billed: read its logs, or stop it"

    attempts: int = 0


class BatchStopped(DeploymentError):
    """It was given up, and stopped if it existed, because the batch was; `__cause__` is why."""

    advice = "Nothing is left of it, unless the log says so: deploy it again"

    def _advice(self) -> str:
        if not self.request_id:
            return self.advice
        return "It is being stopped; a note or the log says if it runs on and is billed"


_BY_STATUS: dict[int, type[Refused]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Unprocessable,
    429: RateLimited,
}


def refusal(status: int) -> type[Refused]:
    """The class of error for an HTTP error status (400 to 599)."""
    return _BY_STATUS.get(status) or (ServerError if status >= 500 else Refused)  # noqa: PLR2004 - 5xx


def is_cancelled() -> bool:
    """Whether the task itself is being cancelled, where CancelledError is raised in it.

    It is not if just what it waited for was.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
