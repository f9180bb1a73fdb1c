"""No failure makes a program show a secret, and the plugin `secret_scanner` finds leaks."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import pprint
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from secret_scanner import MARK

from edgegap_async import EdgegapClient, WebhookReceiver
from edgegap_async.api.messages import encode
from edgegap_async.api.operations import DEPLOY
from edgegap_async.api.requests import DeployRequest
from edgegap_async.emulator import Emulator
from edgegap_async.requests import EnvironmentVariable, Token, Webhook

TOKEN = "canary-token-7b1e55"
HIDDEN = "canary-value-90af3c"


@pytest.mark.timeout(300)
async def test_no_fault_shows_the_token_or_a_hidden_variable() -> None:
    program = Path(__file__).parent / "programs/program_with_secrets.py"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", str(program)),
        env={**os.environ, "EDGEGAP_API_TOKEN": TOKEN, "HIDDEN": HIDDEN, "MARK": MARK},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = (stream.decode("utf-8", "replace") for stream in await process.communicate())

    assert process.returncode == 0, errors[-3000:]
    assert {"NotSent", "NoAnswer", "MaybeCreated", "RateLimited", "Unprocessable"} <= set(
        re.findall(r"\w+", output)
    )
    for name in ("ClientClosed", "TimeoutError", "UnreadableAnswer", "ServerError"):
        assert f"\n{name} " in output
    assert "    client = EdgegapClient(" in output  # local variables were shown
    assert re.search("variables that hold the secret: [1-9]", output)
    assert re.search("webhooks that came: [1-9]", output)
    assert "DEBUG:asyncio" in errors
    assert "listing deployments with the tag" in errors
    for secret in (TOKEN, HIDDEN, "canary"):
        assert secret not in output
        assert secret not in errors


def test_every_token_in_the_tests_can_be_searched_for() -> None:
    """The scanner finds a token by `canary-`; it could not distinguish a token `t` from text."""
    written = re.compile(r"""(?:Client\(\s*|\btoken=)(?!"canary-)"[^"\s]+".*""")
    unmarked = [
        f"{module.name}: {found.group()}"
        for module in Path(__file__).parents[1].rglob("*.py")
        for found in written.finditer(module.read_text("utf-8"))
    ]

    assert not unmarked


# ── objects ──────────────────────────────────────────────────────────────────────────────────────

HOOK = Webhook(f"https://mm.example/{MARK}path/ready")
HIDDEN_ONE = EnvironmentVariable("KEY", HIDDEN, is_hidden=True)
REQUEST = DeployRequest(
    application="arena",
    version="v1",
    users=["8.8.8.8"],
    environment_variables=[HIDDEN_ONE],
    webhook_on_ready=HOOK,
)


async def objects_with_secrets(client: EdgegapClient, receiver: WebhookReceiver) -> list[Any]:
    server = await client.deploy("arena", "v1", users=["8.8.8.8"])
    calls = [client, client.deployments, client.locations, client.private_fleets, client.tags]
    inside = [client._transport, client._token, *client._transport._sessions]
    of_webhooks = [receiver, receiver.open(print), server, server._tracker]
    of_requests = [REQUEST, HIDDEN_ONE, HOOK, encode(DEPLOY, body=REQUEST), Token(TOKEN)]
    return [*calls, *inside, *of_webhooks, *of_requests]


SHOWN: tuple[Callable[[Any], str], ...] = (repr, str, format, ascii, pprint.pformat, "{!r:}".format)


async def test_no_object_of_the_package_prints_its_secrets(emulator: Emulator) -> None:
    async with (
        WebhookReceiver().serve() as receiver,
        EdgegapClient(emulator.token, base_url=emulator.url, webhooks=receiver) as client,
    ):
        for one in [*await objects_with_secrets(client, receiver), emulator, emulator.requests]:
            for show in SHOWN:
                assert MARK not in show(one)


def copied(one: Any) -> list[str]:
    """Returns the reprs of all copies and pickles of a value, or of the errors they raise."""
    shown = []
    for way in (copy.copy, copy.deepcopy, pickle.dumps, vars, attrs.asdict):
        try:
            shown.append(repr(way(one)))
        except (TypeError, AttributeError, attrs.exceptions.NotAnAttrsClassError) as refusal:
            shown.append(repr(refusal))
    return shown


def test_no_copy_or_pickle_shows_the_token() -> None:
    client = EdgegapClient(TOKEN)
    for one in (
        client,
        client._transport,
        client._token,
        client.deployments,
        client._cleanup_deployments,
    ):
        assert not [shown for shown in copied(one) if MARK in shown]


# ── the plugin finds what is planted ─────────────────────────────────────────────────────────────

LEAKY = """
import logging

logger = logging.getLogger("leaky")

class Refused(Exception):
    pass

class Header:
    __module__ = "edgegap_async.planted"

    def __init__(self, secret):
        self.secret = secret

    def __repr__(self):
        return f"Header({self.secret})"

def in_its_text(secret):
    raise Refused(f"{secret} is refused")

def in_a_local_variable(secret):
    raise Refused("refused")

def in_an_attribute(secret):
    error = Refused("refused")
    error.sent, secret = [secret], None
    raise error

def in_its_context(secret):
    try:
        in_its_text(secret)
    except Refused:
        secret = None
        raise Refused("refused") from None

def in_a_group(secret):
    inner, secret = [Refused(secret)], None
    try:
        raise ExceptionGroup("all", inner)
    finally:
        inner = None

def nowhere(secret):
    del secret
    raise Refused("refused")
"""

PLANTED = """
import logging, sys
import leaky, pytest

SECRET = "canary-" + "planted"

@pytest.mark.parametrize("where", [
    "in_its_text", "in_a_local_variable", "in_an_attribute", "in_its_context", "in_a_group",
])
def test_leak_of_an_expected_error(where):
    with pytest.raises((leaky.Refused, ExceptionGroup)):
        getattr(leaky, where)(SECRET)

def test_leak_to_stdout():
    print("the token is", SECRET)

def test_leak_to_stderr():
    sys.stderr.write(SECRET)

def test_leak_to_a_log_at_debug():
    leaky.logger.debug("sent with %s", SECRET)

def test_leak_to_the_arguments_of_a_log():
    leaky.logger.debug("sent with %(scheme)s", {"scheme": "token", "secret": SECRET})

def test_leak_to_the_exception_of_a_log():
    try:
        leaky.in_a_local_variable(SECRET)
    except leaky.Refused:
        leaky.logger.exception("failed")

def test_nothing_leaks():
    header = SECRET
    leaky.logger.debug("sent")
    print("sent")
    with pytest.raises(leaky.Refused):
        leaky.nowhere(SECRET)

@pytest.mark.shows_secrets("the user needs it")
def test_shown_on_purpose():
    print(f"EDGEGAP_API_TOKEN={SECRET}")
"""

PLANTED_OBJECT = """
import leaky

def test_leak_of_an_object():
    global kept
    kept = leaky.Header("canary-" + "planted")
"""

PLANTED_FAILURE = """
import leaky

def test_leak_of_a_failure():
    leaky.in_a_local_variable("canary-" + "planted")
"""


@pytest.fixture
async def planted(tmp_path: Path) -> dict[str, set[str]]:
    """Runs the planted tests in a pytest of their own; returns their names by outcome."""
    files = {
        "leaky": LEAKY,
        "test_planted": PLANTED,
        "test_planted_object": PLANTED_OBJECT,
        "test_planted_failure": PLANTED_FAILURE,
        "pytest": "[pytest]\npythonpath = .\n",
    }
    for name, text in files.items():
        suffix = "ini" if name == "pytest" else "py"
        (tmp_path / f"{name}.{suffix}").write_text(text, "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "secret_scanner", "-p", "no:cacheprovider", "-rA"),
        *("-p", "no:randomly"),  # the planted object stays, and would be found again
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    outcomes: dict[str, set[str]] = {"PASSED": set(), "FAILED": set(), "ERROR": set()}
    for word, name in re.findall(
        r"^(PASSED|FAILED|ERROR) \S+::(\S+)", output.decode(), re.MULTILINE
    ):
        outcomes[word].add(name)
    return outcomes


@pytest.mark.shows_secrets("if a planted leak is missed, the output shows why")
async def test_every_planted_leak_is_found_and_nothing_else(
    planted: dict[str, set[str]],
) -> None:
    leaks = {name for names in planted.values() for name in names if "leak_" in name}

    assert len(leaks) == 12
    assert planted["ERROR"] == leaks
    assert planted["FAILED"] == {"test_leak_of_a_failure"}  # which fails without the plugin too
    assert planted["PASSED"] - leaks == {"test_nothing_leaks", "test_shown_on_purpose"}
