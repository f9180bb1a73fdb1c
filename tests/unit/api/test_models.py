"""Statuses and their transitions, and models as frozen values."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegap_async.api import models
from edgegap_async.api.codec import read_answer
from edgegap_async.api.models import (
    TRANSITIONS,
    BulkStop,
    DeployAccepted,
    Deployment,
    DeploymentRow,
    Endpoint,
    Port,
    Status,
    may_become,
)
from edgegap_async.api.resources.private_fleets import FleetHost

KNOWN = list(Status)


@pytest.mark.parametrize("status", KNOWN)
@pytest.mark.parametrize("prefix", ["Status.", "STATUS_", "status.", ""])
def test_a_known_status_is_read_in_every_spelling(status: Status, prefix: str) -> None:
    assert Status(prefix + str(status)) is status
    assert Status((prefix + str(status)).lower()) is status
    assert status.is_known


def test_a_status_is_its_name() -> None:
    assert Status.READY == "READY"
    assert hash(Status.READY) == hash("READY")
    assert f"{Status.READY}" == str(Status("Status.READY")) == "READY"
    assert [status.api_text for status in (Status.READY, Status("later"))] == [
        "Status.READY",
        "later",
    ]


@pytest.mark.parametrize("text", ["Status.PONDERING", "READY!", "", "UNKNOWN", "short", "STATUS."])
def test_row_23_an_unknown_status_keeps_its_text_and_ends_no_wait(text: str) -> None:
    status = Status(text)

    assert (status, status.value, str(status)) == (text, text, text)
    assert status.name == "UNKNOWN"
    assert [status.is_known, status.is_ready, status.is_terminal] == [False, False, False]
    assert status not in KNOWN


def test_an_unknown_status_is_one_short_line_because_errors_and_logs_quote_it() -> None:
    odd = Status("Status.BAKING\n\x1b[2J" + "!" * 10**6)

    assert odd.startswith("Status.BAKING \ufffd[2J!!!")
    assert len(odd) == len(odd.value) == 1000
    assert Status(" Status.READY\n") is Status.READY


@given(st.one_of(st.text(), st.none(), st.integers(), st.lists(st.text())))
def test_any_value_makes_a_status(value: Any) -> None:
    assert isinstance(Status(value), Status)


@pytest.mark.parametrize("status", [Status.READY, Status("Status.PONDERING")])
def test_a_status_survives_copying_and_pickling(status: Status) -> None:
    assert copy.deepcopy(status) == status
    assert pickle.loads(pickle.dumps(status)) == status
    assert len({status, pickle.loads(pickle.dumps(status))}) == 1


def test_one_status_is_ready_three_are_terminal_and_two_are_final() -> None:
    assert [status for status in KNOWN if status.is_ready] == [Status.READY]
    assert {status for status in KNOWN if status.is_terminal} == {
        Status.ERROR,
        Status.TERMINATING,
        Status.TERMINATED,
    }
    assert {status for status in KNOWN if status.is_final} == {Status.ERROR, Status.TERMINATED}


@pytest.mark.parametrize(
    ("ready", "status", "is_ready"),
    [
        (True, None, True),
        (True, Status.READY, True),
        (True, Status.DEPLOYING, False),
        (False, Status.READY, False),
        (False, None, False),
    ],
)
def test_a_row_is_ready_if_its_flag_and_its_status_agree(
    *, ready: bool, status: Status | None, is_ready: bool
) -> None:
    assert DeploymentRow(request_id="abc", ready=ready, status=status).is_ready is is_ready


def test_the_table_of_transitions_has_every_status_and_only_terminated_is_the_end() -> None:
    assert set(TRANSITIONS) == set(KNOWN)
    assert [status for status, steps in TRANSITIONS.items() if not steps] == [Status.TERMINATED]


def test_every_status_comes_from_initializing_and_ends_terminated() -> None:
    for status in KNOWN:
        assert status is Status.INITIALIZING or may_become(Status.INITIALIZING, status)
        assert status is Status.TERMINATED or may_become(status, Status.TERMINATED)


def test_no_status_comes_back() -> None:
    for earlier, later in itertools.product(KNOWN, KNOWN):
        assert not (may_become(earlier, later) and may_become(later, earlier))


@pytest.mark.parametrize(
    ("earlier", "later", "possible"),
    [
        (Status.INITIALIZING, Status.READY, True),
        (Status.SEEKED, Status.DEPLOYING, True),
        (Status.READY, Status.ERROR, True),
        (Status.READY, Status.READY, False),
        (Status.READY, Status.DEPLOYING, False),
        (Status.ERROR, Status.READY, False),
        (Status.TERMINATED, Status.TERMINATING, False),
        (Status("x"), Status.SEEKING, True),
        (Status.TERMINATED, Status("x"), True),
    ],
)
def test_a_status_may_skip_steps_and_never_goes_back(
    earlier: Status, later: Status, *, possible: bool
) -> None:
    assert may_become(earlier, later) is possible


def test_an_endpoint_prints_as_its_link() -> None:
    endpoint = Endpoint("abc.pr.edgegap.net", 31669, "UDP", "abc.pr.edgegap.net:31669")

    assert str(endpoint) == "abc.pr.edgegap.net:31669"


@pytest.mark.parametrize("number", [0, -1, 65536, "0", "70000", 1e999, "http", 0.0])
def test_a_number_that_no_port_has_reads_as_none(number: object) -> None:
    ports = {"game": {"name": "game", "external": number, "internal": number, "proxy": number}}
    raw = json.dumps({"request_id": "r1", "ports": ports}).encode()

    assert read_answer(Deployment, raw).ports == {"game": Port(name="game")}
    assert read_answer(DeploymentRow, raw).ports == {"game": Port(name="game")}


@pytest.mark.parametrize("number", [1, 65535])
def test_a_port_may_have_the_lowest_and_the_highest_number(number: int) -> None:
    assert Port(external=number).external == number


def test_a_bulk_stop_has_the_ids_of_the_deployments_it_stops() -> None:
    stop = BulkStop(processable=(DeployAccepted(request_id="a"), DeployAccepted(request_id="b")))

    assert stop.request_ids == ("a", "b")


def test_answers_with_equal_fields_are_equal_without_regard_to_raw() -> None:
    assert Deployment(request_id="a", raw={"new": 1}) == Deployment(request_id="a")
    assert "new" not in repr(Deployment(request_id="a", raw={"new": 1}))


def test_a_deployment_without_status_has_an_unknown_status() -> None:
    assert not Deployment(request_id="a").current_status.is_known


@pytest.mark.parametrize(
    "kind",
    [kind for name in models.__all__ if attrs.has(kind := getattr(models, name))],
    ids=lambda kind: kind.__name__,
)
def test_every_model_is_frozen_and_slotted(kind: type[attrs.AttrsInstance]) -> None:
    needed = {field.name: "x" for field in attrs.fields(kind) if field.default is attrs.NOTHING}
    model = kind(**needed)

    assert not hasattr(model, "__dict__")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(model, attrs.fields(kind)[0].name, "y")


def test_json_of_a_model_has_every_field_except_that_of_a_host() -> None:
    assert models.Pagination().absent_fields() == ()
    assert FleetHost(host_id="h1").absent_fields() == {"pin", "delete_schedules"}
