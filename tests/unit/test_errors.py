"""The classes of errors, and the texts of their messages."""

from __future__ import annotations

import ast
import pickle
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgegap_async import errors
from edgegap_async.api.models import CrashData, Deployment, Logs, Status, StatusChange
from edgegap_async.api.status_codes import refusal
from edgegap_async.errors import (
    BadRequest,
    CallError,
    ClientClosed,
    Conflict,
    DeploymentError,
    DeploymentFailed,
    DeploymentTerminated,
    EdgegapError,
    Forbidden,
    Gone,
    ImageUnavailable,
    InvalidRequest,
    LimitReached,
    NoAnswer,
    NotFound,
    NotSent,
    RateLimited,
    Refused,
    ServerError,
    Unauthorized,
    Unprocessable,
    UnreadableAnswer,
    WaitTimedOut,
)


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    parents: list[str] = []
    drawn: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            drawn[match[2]] = parents[depth - 1] if depth else "Exception"

    classes = {name for name in errors.__all__ if name[0].isupper()}
    real = {name: getattr(errors, name).__bases__[0].__name__ for name in classes}

    assert drawn == real


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, Gone),
        (422, Unprocessable),
        (429, RateLimited),
        (418, Refused),
        (424, ImageUnavailable),
        (499, Refused),
        (500, ServerError),
        (503, ServerError),
        (599, ServerError),
    ],
)
def test_each_error_status_has_its_class(status: int, kind: type[Refused]) -> None:
    assert refusal(status) is kind


def test_invalid_request_is_a_value_error() -> None:
    assert issubclass(InvalidRequest, ValueError)


def test_wait_timed_out_is_a_timeout_error() -> None:
    assert issubclass(WaitTimedOut, TimeoutError)


def test_a_message_has_method_path_status_attempts_reason_and_advice() -> None:
    error = Unauthorized(
        "bad token.",
        operation="get_deployment",
        method="GET",
        path="/v1/status/abc",
        status=401,
        request_id="abc",
        attempts=3,
    )

    assert error.operation == "get_deployment"
    assert str(error) == (
        "GET /v1/status/abc answered 401 after 3 attempts. bad token. "
        "Check EDGEGAP_API_TOKEN, which may stand with or without the word `token` before it: the"
        " token is wrong, or was deleted"
    )


def test_a_message_names_a_request_id_that_is_not_in_the_path() -> None:
    error = Unprocessable(
        "no room", method="POST", path="/v2/deployments", status=422, request_id="abc"
    )

    assert str(error).startswith("POST /v2/deployments answered 422 (request_id abc). no room. ")
    assert error.request_id == "abc"


def test_a_call_error_without_facts_still_has_a_message() -> None:
    assert str(CallError("lost")) == "lost"
    assert str(NoAnswer()) == "The API may have acted on the request: check before you repeat it"


def test_an_error_without_arguments_has_an_empty_text() -> None:
    error = EdgegapError()
    error.args = ()

    assert (str(error), error.message) == ("", "")


def test_the_message_has_no_facts_and_no_advice() -> None:
    error = NotSent("no such host", method="GET", path="/v1/locations")

    assert error.message == "no such host"
    assert error.retry_may_help
    assert (error.status, error.request_id, error.attempts) == (None, None, 1)


def test_a_rate_limit_without_time_has_no_retry_after() -> None:
    assert RateLimited("slow down").retry_after is None


def test_a_closed_client_says_when_to_make_calls() -> None:
    assert "before `close()`" in str(ClientClosed("closed"))


def test_a_deployment_error_shows_the_id_and_the_history() -> None:
    now = datetime.now(UTC)
    history = (
        StatusChange(Status.SEEKING, now),
        StatusChange(Status("Status.PONDERING"), now),
        StatusChange(Status.ERROR, now),
    )
    error = DeploymentFailed(
        "no image",
        request_id="abc",
        last_status=Status.ERROR,
        history=history,
        deployment=Deployment(request_id="abc", error_detail="Pull image timeout exceeded"),
    )

    assert str(error) == (
        "deployment abc (SEEKING → Status.PONDERING → ERROR). no image. Read its logs, then stop it"
    )
    assert error.error_detail == "Pull image timeout exceeded"
    assert (error.request_id, error.last_status, error.history) == ("abc", Status.ERROR, history)


@pytest.mark.parametrize("deployment", [None, Deployment(request_id="abc")])
def test_a_failure_without_reason_has_an_empty_detail(
    deployment: Deployment | None,
) -> None:
    assert DeploymentFailed(request_id="abc", deployment=deployment).error_detail == ""


def test_a_deployment_error_without_history_names_only_the_deployment() -> None:
    assert str(DeploymentTerminated(request_id="abc")).startswith("deployment abc. It has ended")


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("slow", operation="deploy", method="POST", path="/v2/deployments", status=429),
        LimitReached("later", operation="deploy", method="POST", path="/v2/deployments"),
        UnreadableAnswer("what", status=200, attempts=2),
        WaitTimedOut("too long", request_id="abc", last_status=Status.SEEKING),
        DeploymentError("odd", request_id="abc"),
    ],
)
def test_an_error_can_be_pickled(error: EdgegapError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("logs", "text"),
    [
        (Logs(), ""),
        (Logs(crash_data=CrashData(exit_code=3)), ". Exit code 3"),
        (Logs(crash_data=CrashData(exit_code=137)), ""),  # the API has named it
        (
            Logs(logs="one\ntwo", crash_data=CrashData(exit_code=3)),
            ". Exit code 3. Its last lines:\none\ntwo",
        ),
    ],
)
def test_a_failed_deployment_shows_exit_code_and_last_lines(logs: Logs, text: str) -> None:
    history = (StatusChange(Status.ERROR, datetime.now(UTC), "status"),)
    error = DeploymentFailed("killed (exit code 137)", request_id="abc", history=history)
    assert error.last_lines == ""
    error.logs = logs

    failed = "deployment abc (ERROR). killed (exit code 137). "
    assert str(error) == f"{failed}It still exists: stop it{text}"
    error.last_status, error.stopped = Status.ERROR, True
    assert str(error) == f"{failed}It was stopped{text}"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (BadRequest("no", operation="deploy"), "Check that the application and version exist"),
        (BadRequest("no", operation="create_tag"), "Check the arguments"),
        (Unauthorized("no", operation="stop_self"), "ARBITRIUM_DELETE_TOKEN"),
        (Unauthorized("no", operation="deploy"), "EDGEGAP_API_TOKEN"),
        (NotFound("no", operation="deploy"), "Check the names in the path, and base_url"),
        (NotFound("no", operation="get_deployment", request_id="abc"), "It never existed"),
        (
            Unprocessable("no", operation="deploy", request_id="abc"),
            "Stop deployment abc: it was created",
        ),
        (Unprocessable("no", operation="get_metrics", request_id="abc"), "Check the arguments"),
    ],
)
def test_the_advice_fits_the_call(error: CallError, advice: str) -> None:
    assert advice in str(error)


def test_a_wait_without_request_id_names_no_deployment() -> None:
    assert str(WaitTimedOut("no answer to the deploy")).startswith("no answer to the deploy")


def test_the_advice_fits_what_is_known() -> None:
    assert str(NoAnswer("late", method="GET")).endswith("The request changed nothing: try again")
    assert str(NoAnswer("late", method="POST")).endswith("check before you repeat it")
    assert str(NoAnswer("late", method="DELETE")).endswith("it does no harm to repeat it")
    unreadable = UnreadableAnswer("no JSON", method="POST", status=202)
    assert str(unreadable).endswith("no proxy answers in its place")
    unreadable.maybe_created = True
    assert str(unreadable).endswith("may have acted on the request: check before you repeat it")
    unsure = Gone("Gone", request_id="abc")
    assert str(unsure).endswith("nothing is left to do")
    unsure.is_certain = False
    assert str(unsure).endswith("check whether a list shows the object")
    seen = WaitTimedOut("late", request_id="abc", last_status=Status.DEPLOYING)
    assert str(seen).endswith("It still exists and is billed: wait again, or stop it")
    unseen = WaitTimedOut("late", request_id="abc")
    assert str(unseen).endswith("It may exist and be billed: wait again, or stop it")


@pytest.mark.parametrize(
    ("text", "suspects"),
    [
        ("manifest for studio/arena:8 not found: manifest unknown", ("tag",)),
        ("Unable to login with the given credentials", ("credentials",)),
        ("image not found", ("image",)),
        (
            "pull access denied for studio/arena, repository does not exist or may require login",
            ("image", "credentials"),
        ),
        ("Unable to pull docker.io/credentials/tag", ("image", "tag", "credentials")),
    ],
)
def test_an_image_that_cannot_be_pulled_has_suspects(text: str, suspects: tuple[str, ...]) -> None:
    error = ImageUnavailable(text, method="POST", path="/v1/app/arena/version", status=424)
    error.image = "docker.io/studio/arena:8"

    assert error.suspects == suspects
    assert str(error).endswith(f". Check its {' and its '.join(suspects)}")
    assert "answered 424 (image docker.io/studio/arena:8). " in str(error)


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────


def errors_in(function: ast.AST) -> set[str]:
    """Returns the names of the variables of a function that hold an error of this package."""
    names = set[str]()
    for node in ast.walk(function):
        match node:
            case ast.ExceptHandler(type=ast.expr() as kind, name=str(name)):
                pass
            case ast.arg(annotation=ast.expr() as kind, arg=name):
                pass
            case ast.Assign(targets=[ast.Name(name)], value=ast.Name(other)) if other in names:
                names.add(name)
                continue
            case _:
                continue
        if {"Exception", "BaseException", *errors.__all__} & set(
            re.findall(r"\w+", ast.unparse(kind))
        ):
            names.add(name)
    return names


def test_a_log_of_what_the_client_goes_on_with_has_no_advice() -> None:
    """Advice such as "try again" contradicts it; `error.reason` has none, and `repr` has none."""
    found = []
    for path in Path(errors.__file__).parent.rglob("*.py"):
        functions = ast.walk(ast.parse(path.read_text()))
        for function in functions:
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = errors_in(function)
            for call in ast.walk(function):
                match call:
                    case ast.Call(func=ast.Attribute(ast.Name("logger"), level)) if (
                        level != "error"
                    ):
                        texts = [ast.unparse(arg) for arg in call.args]
                        if names & set(texts) and not any("%r" in text for text in texts):
                            found.append(f"{path.name}:{call.lineno}")

    assert found == []


def test_the_advice_after_a_refused_stop_says_that_the_server_may_go_on() -> None:
    refused = Forbidden("no", operation="stop_deployment", method="DELETE", path="/v1/stop/abc")

    assert str(refused).endswith(
        "It may go on running and be billed: use a token of its organization"
    )
    assert "template token" in str(Forbidden("no", operation="deploy"))
