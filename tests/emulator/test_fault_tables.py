"""Faults as tables of a TOML file or of JSON."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import attrs
import pytest

from edgegap_async.emulator import (
    Drop,
    Fault,
    HangUp,
    ProxyPage,
    Raw,
    Repeat,
    Respond,
    faults_from_tables,
)
from edgegap_async.emulator.effects import EFFECTS
from edgegap_async.emulator.fault_tables import effect_name, fault_table
from edgegap_async.errors import InvalidRequest

FILE = """
[[faults]]
operation = "deploy"
effect = "drop"

[[faults]]
operation = "deploy"
effect = { name = "respond", status = 503, headers = { Retry-After = "2" } }
when = "read"
times = "forever"
skip = 3
share = 0.5

[[faults]]
effect = { name = "proxy_page", proxy = "haproxy", status = 504 }

[[faults]]
operation = "get_deployment"
effect = { name = "raw", data = "nonsense", closes = false }

[[faults]]
operation = "webhook_on_ready"
effect = { name = "repeat", times = 3 }
times = 2
"""

FAULTS = (
    Fault("deploy", Drop()),
    Fault(
        "deploy",
        Respond(503, headers={"Retry-After": "2"}),
        when="read",
        times=None,
        skip=3,
        share=0.5,
    ),
    Fault(None, ProxyPage(504, "haproxy")),
    Fault("get_deployment", Raw(b"nonsense", closes=False)),
    Fault("webhook_on_ready", Repeat(3), times=2),
)


def test_a_file_has_the_faults_of_code() -> None:
    assert faults_from_tables(tomllib.loads(FILE)["faults"]) == FAULTS


def test_a_fault_reads_back_from_its_table() -> None:
    tables = json.loads(json.dumps([fault_table(fault) for fault in FAULTS]))

    assert faults_from_tables(tables) == FAULTS


def test_every_effect_has_a_name() -> None:
    names = [effect_name(kind) for kind in EFFECTS]

    assert names == [
        "drop",
        "respond",
        "proxy_page",
        "raw",
        "delay",
        "truncate",
        "wrong_length",
        "dribble",
        "hang_up",
        "act_twice",
        "hide",
        "repeat",
    ]
    assert all(attrs.has(kind) for kind in EFFECTS)
    assert effect_name(HangUp) == "hang_up"


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({}, "faults must be a list of tables, not {}"),
        (["drop"], r"faults\[0\]: a fault must be a table, not 'drop'"),
        ([{"effect": "drop"}, {}], r"faults\[1\]: effect is missing; there are drop, respond"),
        ([{"effect": "dropp"}], "there is no effect 'dropp'; there are drop, respond"),
        ([{"effect": 5}], "effect must be a name or a table with a name, not 5"),
        ([{"effect": {}}], "there is no effect None"),
        ([{"effect": {"name": ["x"]}}], r"there is no effect \['x'\]"),
        ([{"effect": "respond"}], "the effect respond needs status"),
        ([{"effect": {"name": "drop", "seconds": 1}}], "the effect drop has no seconds; it has"),
        ([{"effect": {"name": "drop", "reset": "no"}}], "reset must be of type bool"),
        ([{"effect": {"name": "respond", "status": "x"}}], "status must be of type int"),
        ([{"effect": {"name": "respond", "status": 500, "headers": 5}}], "headers must be a table"),
        (
            [{"effect": {"name": "respond", "status": 500, "headers": {"A": "b\nc"}}}],
            "headers must be a table of texts",
        ),
        ([{"effect": {"name": "proxy_page", "proxy": "x"}}], "proxy must be one of nginx, haproxy"),
        ([{"effect": "drop", "operation": "redeploy"}], "there is no call 'redeploy'"),
        ([{"effect": "drop", "operation": 5}], "there is no call 5"),
        ([{"effect": "drop", "operation": ["deploy"]}], r"there is no call \['deploy'\]"),
        ([{"effect": "drop", "often": 1}], "a fault has no often; it has effect, operation"),
        ([{"effect": "drop", "times": 0}], "times must be 1 or more"),
        ([{"effect": "drop", "when": "later"}], "when must be one of unread, read, acted"),
        ([{"effect": "act_twice", "when": "read"}], "use it with when='acted'"),
    ],
)
def test_a_wrong_table_is_an_error_that_says_what_would_be_right(
    tables: Any, complaint: str
) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        faults_from_tables(tables)
