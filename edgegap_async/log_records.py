"""The fields of log records: what the package knows of a failure, for formatters of JSON."""

from __future__ import annotations

from .errors import CallError, DeploymentError


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
