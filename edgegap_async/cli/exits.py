"""The exit statuses, and what a command says when it fails: the one place that decides both.

| status | what it says |
| --- | --- |
| 0 | done; also if the reader of stdout has left, as `head` does |
| 1 | another error |
| 2 | the command line or a setting is wrong; nothing was sent |
| 3 | the deployment failed |
| 4 | no token, or the API does not accept it |
| 5 | the deployment, application or version does not exist |
| 6 | a deployment may exist; stdout has its operation tag, for `recover --tag` |
| 124 | not in time |
| 130, 143, 129 | ended by SIGINT (Ctrl-C), SIGTERM, SIGHUP (a closed terminal) |
"""

from __future__ import annotations

import re
from typing import Final

import click

from edgegap_async import errors

from .output import Output, visible

FAILED: Final = 1
USAGE: Final = 2
DEPLOYMENT_FAILED: Final = 3
AUTHENTICATION: Final = 4
NOT_FOUND: Final = 5
MAYBE_CREATED: Final = 6
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130

_STATUSES: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (errors.InvalidRequest, USAGE),
    (errors.WaitTimedOut, TIMED_OUT),
    (errors.DeploymentError, DEPLOYMENT_FAILED),
    (errors.Unauthorized, AUTHENTICATION),
    (errors.Forbidden, AUTHENTICATION),
    (errors.NotFound, NOT_FOUND),
    (errors.Gone, NOT_FOUND),
    (KeyboardInterrupt, INTERRUPTED),
)
"""The first class that an error is of decides."""

_OF_DEPLOYS: Final = (
    (errors.Unprocessable, DEPLOYMENT_FAILED),
    (errors.BadRequest, NOT_FOUND),  # the API documents no other reason for a 400
    *_STATUSES,
)


class Failure(click.ClickException):
    """A failure of the command itself, with the exit status that it ends with.

    Args:
        status: the exit status.
        message: what happened, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = status  # type: ignore[misc] # click's own is a constant

    def show(self, file: object = None) -> None:
        """Prints the message on stderr."""
        del file
        click.echo(f"Error: {visible(self.message, chr(10))}", err=True)


def status_of(error: BaseException) -> int:
    """Returns the exit status of a command that ends with an error."""
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, errors.CallError):
        if error.maybe_created:
            return MAYBE_CREATED
        if error.operation in {"deploy", "deploy_to_fleet"}:
            return next((one for kind, one in _OF_DEPLOYS if isinstance(error, kind)), FAILED)
    if isinstance(error, errors.PoolEmpty):
        return status_of(error.__cause__) if error.__cause__ is not None else TIMED_OUT
    if isinstance(error, BaseExceptionGroup):
        return max(map(status_of, error.exceptions))
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), FAILED)


def text_of(error: errors.EdgegapError) -> str:
    """Returns the text of an error, with the variables that the command line has for arguments."""
    return re.sub(r"\bbase_url\b", "EDGEGAP_BASE_URL", str(error))


def report(error: BaseException, output: Output) -> None:
    """Prints why a command has failed; after a deploy that may have worked also its tag."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            report(one, output)
    elif isinstance(error, click.ClickException):
        error.show()
    elif isinstance(error, errors.EdgegapError):
        output.warn(f"{type(error).__name__}: {text_of(error)}")
        if isinstance(error, errors.CallError) and error.maybe_created and error.operation_tag:
            output.warn(f"To find it later: edgegap-async recover --tag {error.operation_tag}")
            if output.json:
                output.json_line({"operation_tag": error.operation_tag})
            else:
                output.line(visible(error.operation_tag))
    elif isinstance(error, OSError):
        output.warn(f"Error: {error}")
