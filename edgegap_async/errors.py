"""Every error that this package raises.

::

    EdgegapError
    ├── InvalidRequest (also a ValueError)   an argument is invalid; no request was sent
    ├── NotAllowed                           the client's `Guard` forbids the call
    │   └── DryRun                           `dry_run` is on: the call is valid, and was not sent
    ├── ClientClosed                         the client is closed, or was closed during the call
    ├── WrongLoop                            the client belongs to another event loop
    ├── PoolEmpty                            a `ServerPool` has no READY server to allocate
    ├── WebhookNotReceived                   the public URL of a receiver does not reach it
    ├── CallError                            one call to the API failed
    │   ├── NotSent                          the request never reached the API
    │   │   └── LimitReached                 the client's rate limit would delay it too long
    │   ├── NoAnswer                         the request was sent and no answer came
    │   │   ├── MaybeCreated                 a deployment may exist; its operation tag finds it
    │   │   └── RelayMaybeCreated            a relay session may exist; it is one of `candidates`
    │   ├── UnreadableAnswer                 the answer cannot be used
    │   └── Refused                          the API answered with an error status
    │       ├── BadRequest            400
    │       ├── Unauthorized          401
    │       ├── Forbidden             403
    │       ├── NotFound              404, and 400 "Bad Request ID provided"
    │       ├── Conflict              409
    │       ├── Gone                  410
    │       ├── Unprocessable         422; after a deploy with the `request_id` it created
    │       ├── ImageUnavailable      424: the image of an application version cannot be pulled
    │       ├── RateLimited           429, with `retry_after`
    │       └── ServerError           5xx
    ├── RelayNotLinked                       the relay session has failed or is gone
    │   └── RelayTimedOut (also a TimeoutError)
    └── DeploymentError                      the calls succeeded, the deployment did not
        ├── WaitTimedOut (also a TimeoutError)
        ├── DeploymentFailed                 the deployment is in Status.ERROR
        ├── DeploymentTerminated             the deployment ended before it was READY
        ├── NotPlayable                      the deployment is READY and failed its check
        └── BatchStopped                     the batch was stopped before this deployment was done

A class exists where a caller would act differently. No aiohttp exception leaves the package.
No error holds the API token, a header or a query string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, Self, TypeAlias

if TYPE_CHECKING:
    from .api.models import Deployment, Logs, Status, StatusChange
    from .api.resources.relays import RelaySession

    class _Observed(Protocol):
        @property
        def request_id(self) -> str: ...
        @property
        def status(self) -> Status | None: ...
        @property
        def history(self) -> tuple[StatusChange, ...]: ...
        @property
        def deployment(self) -> Deployment | None: ...


ImagePart: TypeAlias = Literal["image", "tag", "credentials"]
"""Why an image cannot be pulled: registry or name, tag, or credentials are wrong."""

_IMAGE_WORDS: Final[Mapping[ImagePart, str]] = {
    "image": "image (was )?not found|of that name|repository|name unknown",
    "tag": r"\btag\b|manifest",
    "credentials": "credential|log ?in|password|unauthori[sz]ed|authenticat|denied",
}

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
    "ImageUnavailable",
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
    "RelayMaybeCreated",
    "RelayNotLinked",
    "RelayTimedOut",
    "ServerError",
    "Unauthorized",
    "Unprocessable",
    "UnreadableAnswer",
    "WaitTimedOut",
    "WebhookNotReceived",
    "WrongLoop",
]


class EdgegapError(Exception):
    """Base class of every error in this package.

    `str(error)` has three parts: what the error is about, what happened, and what to do.
    """

    advice: ClassVar[str] = ""
    """What the caller can do about errors of this class; empty if nothing fits them all."""

    stopped: bool = False
    """Whether the API has accepted a stop of the deployment by `client.run`, a batch or a pool.

    A deployment that is neither READY nor in ERROR yet is billed until it is, and then ends."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """What happened, without facts and advice. The API's own text where it sent one."""
        return str(self.args[0]) if self.args else ""

    @property
    def reason(self) -> str:
        """`str(error)` without the advice, for the text of another error or of a log."""
        parts = (self._facts(), self.message)
        return ". ".join(part.rstrip(". ") for part in parts if part)

    def _facts(self) -> str:
        return ""

    def _advice(self) -> str:
        return self.advice

    def _stop_text(self) -> str:
        return "It was stopped"

    def __str__(self) -> str:
        parts = (self.reason, self._stop_text() if self.stopped else self._advice())
        return ". ".join(part.rstrip(". ") for part in parts if part)


class InvalidRequest(EdgegapError, ValueError):
    """An argument or a setting is invalid. No request was sent."""


class NotAllowed(EdgegapError):
    """The client's `Guard` forbids the call. No request was sent."""

    advice = (
        "To allow the call, change the client's guard; EDGEGAP_READ_ONLY and EDGEGAP_APP_ALLOWLIST"
        " set it by default"
    )


class DryRun(NotAllowed):
    """The call is valid and was not sent, because the client's `Guard` has `dry_run`.

    Attributes:
        operation: name of the call, such as `deploy`.
        method: HTTP method.
        path: path of the URL that the request would have gone to, without query.
    """

    advice = "To send it, take dry_run off the client's guard; EDGEGAP_DRY_RUN sets it by default"

    def __init__(
        self, message: str = "", *, operation: str = "", method: str = "", path: str = ""
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.method = method
        self.path = path


class ClientClosed(EdgegapError):
    """The client is closed, or was closed while the call waited."""

    advice = "Make calls inside `async with EdgegapClient()`, or before `close()`"


class WrongLoop(EdgegapError):
    """The client is used in another event loop than the one it was first used in.

    So is a batch, a pool, a webhook receiver or an emulator; or the loop of the emulator that the
    client calls does not run.

    The other loop may belong to another thread, to a forked process, or to a second `asyncio.run`.
    The client's connections and waiting tasks belong to the first loop.
    """

    advice = (
        "Make one client for each event loop, and everything that it works with in the same loop;"
        " with pytest-asyncio give fixtures and tests the same loop_scope"
    )


class WebhookNotReceived(EdgegapError):
    """The public URL of a `WebhookReceiver` does not reach it, as its `check` has found."""

    advice = "Compare public_url and path with the proxy and the application that serve them"


class PoolEmpty(EdgegapError):
    """A `ServerPool` had no READY server to allocate, and none became READY in time.

    `__cause__` is the error of the last deploy, if failing deploys are the reason.
    """

    advice = "See pool.stats; raise max_total or the timeout"

    is_over: bool = False
    """Whether the pool has ended and will never have a server again."""

    def _advice(self) -> str:
        return "" if self.is_over or self.__cause__ is not None else self.advice


class CallError(EdgegapError):
    """One call to the API failed.

    Attributes:
        operation: name of the call, such as `get_deployment`.
        method: HTTP method.
        path: path of the URL, without query.
        status: HTTP status of the answer; None if no answer came.
        request_id: the deployment that the call was about, or that the answer names; None if
            neither names one.
        attempts: how many times the client tried to send the request, 1 or more.
    """

    waited: float = 0.0
    """Seconds that the client waited between attempts.

    For a deploy: also the seconds for which the client searched the list of deployments after a
    lost answer."""

    operation_tag: str | None = None
    """The tag that identifies a deploy by `client.deploy` or `client.run`; None for other calls."""

    maybe_created: bool = False
    """Whether the call may have created a deployment whose `request_id` is unknown."""

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

    _advice_of: ClassVar[Mapping[str, str]] = {}  # the advice by operation, if it is another

    def _advice(self) -> str:
        special = self._advice_of.get(self.operation)
        return NoAnswer.advice if self.maybe_created else special or self.advice


class NotSent(CallError):
    """The request never reached the API, so it created and changed nothing."""

    advice = "Nothing was sent: check the network and base_url, then try again"

    retry_may_help: bool = True
    """False if the same request would fail again, such as with an untrusted certificate."""


class LimitReached(NotSent):
    """The client's rate limits would delay the call for longer than it may wait.

    Raised only with `on_limit="raise"` or a `max_wait`; other calls wait for a permit.
    """

    advice = "Nothing was sent: try again later, or let calls wait (on_limit, max_wait)"

    retry_may_help = False  # the caller chose not to wait, so the client does not retry either

    predicted_wait: float = 0.0
    """Seconds until the request could have been sent, as an estimate."""


class NoAnswer(CallError):
    """The request was sent and no usable answer came, so what the API did is unknown."""

    advice = "The API may have acted on the request: check before you repeat it"

    def _advice(self) -> str:
        if self.method == "DELETE":
            return "The API may have acted on the request: it does no harm to repeat it"
        return "The request changed nothing: try again" if self.method == "GET" else self.advice


class MaybeCreated(NoAnswer):
    """A deploy was sent, and the client could not find out whether it created a deployment.

    If the deployment exists, it has the tag `operation_tag`. Both
    `client.recover(error.operation_tag)` and `Filter("tags", "in", [error.operation_tag])` find it.
    """

    advice = (
        "A deployment may exist and be billed: client.recover(error.operation_tag) finds it later"
    )

    def _facts(self) -> str:
        return f"{super()._facts()} (tag {self.operation_tag})"


class RelayMaybeCreated(NoAnswer):
    """A relay session was asked for, and the client could not find out whether it was created.

    Attributes:
        candidates: ids of the sessions with the same players and the same webhook URL that this
            client does not know. The new session is one of them, if there is one. Another program
            may have created them: where none does so, delete them.
    """

    def __init__(
        self, message: str = "", *, candidates: tuple[str, ...] = (), **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.candidates = candidates

    def _facts(self) -> str:
        return ""  # the message has those of the call

    def _advice(self) -> str:
        if self.candidates:
            ids = ", ".join(self.candidates)
            return f"A session may exist and be billed: it is one of {ids}; delete it"
        return "A session may exist and be billed: client.relays.list() shows the players of each"


class UnreadableAnswer(CallError):
    """The answer cannot be used: not JSON, too large, a redirect, or without a required field."""

    advice = "Check that base_url is the Edgegap API and that no proxy answers in its place"


_UNCERTAIN_ADVICE: Final = "A proxy may have answered: check whether a list shows the object"


class Refused(CallError):
    """The API answered with an error status."""

    retry_after: float | None = None
    """Seconds that the answer asks to wait, from 0 to 60; None if it names no time.

    Only answers after which the client may repeat a request have it, such as 429 and 503."""

    is_certain: bool = True
    """False if a proxy may have answered in the API's place.

    That is an empty 401, 403, 404, 410 or 421, and a 400, 404 or 410 about a deployment whose text
    is not the API's. The client repeats such calls, and confirms by the list of deployments that a
    deployment does not exist."""


class BadRequest(Refused):
    """400: the API does not accept the request. No deployment was created."""

    advice = "Check the arguments"
    _advice_of = dict.fromkeys(
        ("deploy", "deploy_to_fleet"), "Check that the application and version exist"
    )


class Unauthorized(Refused):
    """401: the API does not know the token."""

    advice = (
        "Check EDGEGAP_API_TOKEN, which may stand with or without the word `token` before it: the"
        " token is wrong, or was deleted"
    )
    _advice_of: ClassVar[Mapping[str, str]] = {
        "stop_self": "Check that the token is this deployment's ARBITRIUM_DELETE_TOKEN"
    }


class Forbidden(Refused):
    """403: the API knows the token, and the token has no permission for the call."""

    advice = (
        "The token was probably deleted, or is the template token of the documentation: use a token"
        " of the organization that owns the deployment"
    )
    _advice_of: ClassVar[Mapping[str, str]] = {
        "stop_deployment": "It may go on running and be billed: use a token of its organization"
    }


class NotFound(Refused):
    """404: the deployment, its tag, another object or the path does not exist.

    Also raised for a 400 `Bad Request ID provided`: the live API answers so for an unknown id,
    where its description says 404.
    """

    advice = "It never existed, or it was stopped some time ago"

    def _advice(self) -> str:
        if not self.is_certain:
            return _UNCERTAIN_ADVICE
        return self.advice if self.request_id else "Check the names in the path, and base_url"


class Conflict(Refused):
    """409: an object with that name exists already."""

    advice = "Use the existing object, or choose another name"


class Gone(Refused):
    """410: the deployment is terminated already."""

    advice = "The deployment is terminated: nothing is left to do"

    def _advice(self) -> str:
        return self.advice if self.is_certain else _UNCERTAIN_ADVICE


class Unprocessable(Refused):
    """422: the API understood the request and cannot fulfil it.

    After a deploy, `request_id` names a deployment **that was created**, in Status.ERROR. It is
    listed, and counts against quotas, until it is stopped.
    """

    advice = "Check the arguments"

    def _advice(self) -> str:
        if self.request_id and self.operation.startswith("deploy"):
            return f"Stop deployment {self.request_id}: it was created, and is in ERROR"
        return self.advice


class ImageUnavailable(Refused):
    """424: the API cannot pull the container image of an application version.

    Also raised for a 400 that says that the API could not log in to the registry.
    """

    image: str | None = None
    """Registry, name and tag of the image, as far as the call named them; None if it named none."""

    @property
    def suspects(self) -> tuple[ImagePart, ...]:
        """What the API's text names as the reason: `image`, `tag`, `credentials`, or some of them.

        All three if it names none: the API does not document its texts.
        """
        text = re.sub(r"\S+/\S+", "", self.message)  # names of images have slashes
        named: list[ImagePart] = [
            part for part, words in _IMAGE_WORDS.items() if re.search(words, text.lower())
        ]
        return tuple(named or _IMAGE_WORDS)

    def _advice(self) -> str:
        return f"Check its {' and its '.join(self.suspects)}"

    def _facts(self) -> str:
        return super()._facts() + (f" (image {self.image})" if self.image else "")


class RateLimited(Refused):
    """429: the organization made more calls than its rate limit allows."""

    advice = "Wait, then try again; lower `limits` if other programs share the organization's limit"


class ServerError(Refused):
    """5xx: the API, or a proxy before it, failed. A deploy may have been accepted."""

    advice = "Try again later"


class RelayNotLinked(EdgegapError):
    """A relay session has failed, or does not exist any more. `client.relay` deletes it.

    Attributes:
        session: the newest answer about the session; None if none came.
    """

    advice = "Create another one"

    def __init__(self, message: str = "", *, session: RelaySession | None = None) -> None:
        super().__init__(message)
        self.session = session

    def _facts(self) -> str:
        if self.session is None:
            return "relay session"
        return f"relay session {self.session.session_id} ({self.session.status})"


class RelayTimedOut(RelayNotLinked, TimeoutError):
    """A relay session was not linked to a relay in time. `client.relay` deletes it."""


class DeploymentError(EdgegapError):
    """The calls to the API succeeded, and the deployment is not in the state that was asked for.

    Attributes:
        request_id: id of the deployment; empty if it was never accepted.
        last_status: the newest status that the client saw; None if it saw none.
        history: the statuses that the client saw, each with its time, oldest first.
        deployment: the newest answer about the deployment; None if none came.
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
        seen = " → ".join(str(change.status) for change in self.history)
        return f"deployment {self.request_id}" + (f" ({seen})" if seen else "")

    def _stop_text(self) -> str:
        if (seen := self.last_status) and (seen.is_ready or seen.is_terminal):
            return super()._stop_text()
        return "The API has accepted its stop: it is billed until READY or ERROR, and then ends"


class WaitTimedOut(DeploymentError, TimeoutError):
    """The deployment did not reach the status in time. It still exists until it is stopped."""

    advice = "It still exists and is billed: wait again, or stop it"

    def _advice(self) -> str:
        unseen = "It may exist and be billed: wait again, or stop it" if self.request_id else ""
        return self.advice if self.last_status else unseen


class DeploymentFailed(DeploymentError):
    """The deployment is in Status.ERROR. It still exists, with its logs, until it is stopped."""

    advice = "Read its logs, then stop it"

    logs: Logs | None = None
    """The logs of its container, which `client.run` requests; None from other calls."""

    @property
    def error_detail(self) -> str:
        """The API's reason for the failure; empty if it gave none."""
        return (self.deployment and self.deployment.error_detail) or ""

    @property
    def exit_code(self) -> int | None:
        """The exit code of the game server's process; None if it is not known."""
        crash = self.logs and self.logs.crash_data
        return crash.exit_code if crash else None

    @property
    def last_lines(self) -> str:
        """The last ten lines of the container's log; empty if the log is not known."""
        log = (self.logs and (self.logs.crash_logs or self.logs.logs)) or ""
        return "\n".join(log.splitlines()[-10:])

    def _advice(self) -> str:
        return self.advice if self.logs is None else "It still exists: stop it"

    def __str__(self) -> str:
        text = super().__str__()
        if self.exit_code is not None and not re.search(rf"\bcode {self.exit_code}\b", text):
            text += f". Exit code {self.exit_code}"
        return f"{text}. Its last lines:\n{self.last_lines}" if self.last_lines else text


class DeploymentTerminated(DeploymentError):
    """The deployment ended before it reached the status that the caller waited for."""

    advice = "It has ended: deploy another"


class NotPlayable(DeploymentError):
    """The deployment is READY, and its `PlayableCheck` did not succeed in time.

    The deployment still exists. `__cause__` is the error of the last attempt.
    """

    advice = "It still exists and is billed: read its logs, or stop it"

    attempts: int = 0
    """How many attempts the check made."""


class BatchStopped(DeploymentError):
    """The batch was stopped before this deployment was done; `__cause__` is the reason.

    The batch stops the deployment if it exists.
    """

    advice = "No deployment is left, unless the log names one: deploy it again"

    def _advice(self) -> str:
        if not self.request_id:
            return self.advice
        return "It is being stopped; if the stop fails, a note on this error or the log says so"


def log_fields(error: BaseException | None = None, /, **known: object) -> dict[str, object]:
    """Returns the `extra` of a log record: what is known, without fields that are None.

    A formatter for JSON, or structlog's `ExtraAdder`, writes them as keys of their own.

    Args:
        error: what has happened; its class is the field `error`. An error of this package adds
            what it knows of its call and of its deployment.
        known: other fields, which go before those of the error.
    """
    found: dict[str, object] = {}
    if error is not None:
        found["error"] = type(error).__name__
    if isinstance(error, CallError):
        found |= {
            "operation": error.operation,
            "status": error.status,
            "attempts": error.attempts,
            "operation_tag": error.operation_tag,
        }
    if isinstance(error, CallError | DeploymentError):
        found["request_id"] = error.request_id
    return {name: value for name, value in (found | known).items() if value is not None}
