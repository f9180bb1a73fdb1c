"""Each log record has fields, and the guide knows each logger, level and field."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from scripted_api import Reply, ScriptedApi

from edgegap_async import ApiClient
from edgegap_async.errors import DeploymentFailed, MaybeCreated, log_fields

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "examples/README.md").read_text("utf-8")
LEVELS = {
    "debug": {"DEBUG"},
    "info": {"INFO"},
    "warning": {"WARNING"},
    "error": {"ERROR"},
    "exception": {"ERROR"},
    "critical": {"CRITICAL"},
}


def logging_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, set[str]]]:
    """Yields each call that makes a log record, and the levels that the record may have."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, method = node.func.value, node.func.attr
        if not isinstance(owner, ast.Name) or owner.id not in {"logger", "_log", "logging"}:
            continue
        if method in LEVELS:
            yield node, LEVELS[method]
        elif method == "log":
            names = [one.attr for one in ast.walk(node.args[0]) if isinstance(one, ast.Attribute)]
            yield node, set(names)


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / "edgegap_async").rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def fields_of(call: ast.Call) -> set[str] | None:
    """Returns the names of the fields that a logging call names itself; None for no `extra`."""
    [extra, *_] = [*(one.value for one in call.keywords if one.arg == "extra"), None]
    if isinstance(extra, ast.Name):  # a variable of the function
        return set()
    if not isinstance(extra, ast.Call) or ast.unparse(extra.func) != "log_fields":
        return None
    return {one.arg or "**" for one in extra.keywords}


def test_every_logging_call_has_fields() -> None:
    without = [
        f"{path.relative_to(ROOT)}:{call.lineno}: a logging call without extra=log_fields(…)"
        for path, tree in modules()
        for call, _ in logging_calls(tree)
        if fields_of(call) is None
    ]

    assert without == []


def test_a_logging_call_without_fields_is_found() -> None:
    code = "logger.warning('text')\nlogger.info('text', extra=log_fields(request_id=one))"
    found = {call.lineno: fields_of(call) for call, _ in logging_calls(ast.parse(code))}

    assert found == {1: None, 2: {"request_id"}}


def table_after(heading: str) -> list[list[str]]:
    """Returns the cells of the first table after a line of the guide."""
    rows = GUIDE[GUIDE.index(heading) :].split("\n| --- ", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows.splitlines()[1:]]


def test_the_guide_has_the_levels_of_each_logger() -> None:
    written = {
        name.strip("` "): set(levels.split(", "))
        for name, levels, _ in table_after("| logger | levels |")
    }
    used = defaultdict[str, set[str]](set)
    for path, tree in modules():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for _, levels in logging_calls(tree):
            rows = [row for row in written if f"{name}.".startswith(f"{row}.")]
            used[max(rows, key=len, default=name)] |= levels

    assert written == used


def test_the_guide_has_each_field() -> None:
    names = {name for row in table_after("| field |") for name in re.findall(r"`(\w+)`", row[0])}
    used = set[str]()
    for _, tree in modules():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            if ast.unparse(call.func) == "log_fields":
                used |= {one.arg or "**" for one in call.keywords}

    assert names == used | set(log_fields(MaybeCreated("m", operation="deploy", status=500))) | {
        "operation_tag",
        "request_id",
    }
    assert not names & set(vars(logging.makeLogRecord({})))  # logging refuses those


def test_an_error_adds_what_it_knows_of_its_call_and_its_deployment() -> None:
    lost = MaybeCreated("lost", operation="deploy", method="POST", status=503)
    lost.operation_tag = "op-1"

    assert log_fields(lost, seconds=1.5, owner=None) == {
        "error": "MaybeCreated",
        "operation": "deploy",
        "status": 503,
        "attempts": 1,
        "operation_tag": "op-1",
        "seconds": 1.5,
    }
    failed = DeploymentFailed("crashed", request_id="abc123")
    assert log_fields(failed) == {"error": "DeploymentFailed", "request_id": "abc123"}
    assert log_fields(LookupError()) == {"error": "LookupError"}


@pytest.mark.virtual
async def test_structlog_writes_the_fields_of_a_repeated_call(api: ScriptedApi) -> None:
    lines = list[str]()

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Lines()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logger = logging.getLogger("edgegap_async")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    reply = Reply(body={"request_id": "r1", "current_status": "Status.READY"})
    api.on("GET", "/v1/status/r1", Reply(503), reply)
    try:
        async with ApiClient("canary-5d1c", base_url=api.url) as client:
            await client.deployments.get("r1")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

    [line] = lines
    fields = json.loads(line)
    assert fields.pop("event").startswith("GET /v1/status/r1 answered 503")
    assert fields.pop("seconds") > 0
    assert fields == {
        "level": "info",
        "error": "ServerError",
        "operation": "get_deployment",
        "status": 503,
        "attempts": 1,
        "request_id": "r1",
    }
