"""Versions: what is checked before a call, what is copied, and what a lost answer means."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from recorded_calls import Recorder

from edgegap_async.api.requests import EnvironmentVariable
from edgegap_async.api.resources.applications import (
    CREATE_VERSION,
    GET_VERSION,
    SET_AND_ENCRYPTED,
    UPDATE_VERSION,
    Application,
    ApplicationVersion,
    VersionChanges,
    VersionPort,
    VersionPortRequest,
    VersionRequest,
    VersionSaved,
    VersionSettings,
    VersionVariable,
)
from edgegap_async.errors import InvalidRequest, NoAnswer, NotFound
from edgegap_async.http.resources.applications import Applications, Versions

IMAGE = {"docker_repository": "docker.io", "docker_image": "studio/arena", "docker_tag": "7"}
NEEDED: dict[str, Any] = {**IMAGE, "req_cpu": 1024, "req_memory": 2048}
SHOWN = ApplicationVersion(
    name="v1",
    is_active=True,
    max_duration=60,
    restart_policy="never",
    ports=(
        VersionPort(port=7777, protocol="UDP", name="game"),
        VersionPort(port=80, protocol="Websocket", to_check=False, tls_upgrade=True),
    ),
    envs=(VersionVariable(key="MODE", value="duel"),),
    **NEEDED,
)
SECRETIVE = attrs.evolve(
    SHOWN,
    private_username=SET_AND_ENCRYPTED,
    private_token=SET_AND_ENCRYPTED,
    envs=(VersionVariable(key="PASSWORD", value=SET_AND_ENCRYPTED, is_hidden=True),),
)


def lost() -> NoAnswer:
    error = NoAnswer("the connection was reset", method="POST")
    error.maybe_created = True
    return error


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────


async def test_a_version_is_created_with_all_of_its_settings() -> None:
    call = Recorder([VersionSaved(success=True, version=SHOWN)])
    made = await Versions(call).create(
        "arena", "v1", **NEEDED, max_duration=-1, envs={"MODE": "duel"}
    )
    body = VersionRequest(name="v1", **NEEDED, max_duration=-1, envs={"MODE": "duel"})

    assert made is SHOWN
    assert call.calls == [
        {"operation": CREATE_VERSION, "path": {"application": "arena"}, "body": body}
    ]


async def test_a_copy_is_the_version_with_changes() -> None:
    call = Recorder([SHOWN, VersionSaved(success=True, version=SHOWN)])
    await Versions(call).copy("arena", "v1", "v2", docker_tag="8", max_duration=30)
    body = VersionRequest(
        name="v2",
        **{**NEEDED, "docker_tag": "8"},
        is_active=True,
        verify_image=False,
        force_cache=False,
        will_deploy_in_mainland_china=False,
        max_duration=30,
        restart_policy="never",
        ports=(
            VersionPortRequest(port=7777, protocol="UDP", name="game"),
            VersionPortRequest(port=80, protocol="WS", to_check=False, tls_upgrade=True),
        ),
        envs={"MODE": "duel"},
    )

    assert [said["operation"] for said in call.calls] == [GET_VERSION, CREATE_VERSION]
    assert call.calls[1]["body"] == body


async def test_a_copy_leaves_out_the_default_that_the_api_shows_and_refuses() -> None:
    shown = attrs.evolve(SHOWN, time_to_deploy=10)
    call = Recorder([shown, VersionSaved(version=SHOWN)] * 2)
    await Versions(call).copy("arena", "v1", "v2")
    await Versions(call).copy("arena", "v1", "v3", time_to_deploy=20)

    assert [said["body"].time_to_deploy for said in call.calls[1::2]] == [None, 20]


async def test_a_copy_leaves_out_what_the_api_shows_as_an_empty_text() -> None:
    shown = attrs.evolve(
        SHOWN,
        private_username="",
        private_token="",
        dns_config="",
        ports=(VersionPort(port=7777, protocol="UDP", name=""),),
    )
    call = Recorder([shown, VersionSaved(version=SHOWN)])
    await Versions(call).copy("arena", "v1", "v2")
    body = call.calls[1]["body"]

    assert (body.private_username, body.private_token, body.dns_config) == (None, None, None)
    assert body.ports == (VersionPortRequest(port=7777, protocol="UDP"),)


async def test_an_update_sends_only_what_changes_and_reads_what_the_answer_lacks() -> None:
    call = Recorder([VersionSaved(success=True), SHOWN])
    changed = await Versions(call).update("arena", "v1", name="v2", is_active=False)
    first, second = call.calls

    assert changed is SHOWN
    assert first["operation"] is UPDATE_VERSION
    assert first["body"] == VersionChanges(name="v2", is_active=False)
    assert second["path"] == {"application": "arena", "version": "v2"}


def test_the_settings_are_the_fields_of_the_request() -> None:
    fields = {field.name for field in attrs.fields(VersionChanges)}
    named = {"name", "docker_repository", "docker_image", "docker_tag"}

    assert VersionSettings.__annotations__.keys() == fields - named
    assert {field.name for field in attrs.fields(VersionRequest)} - fields == {
        "req_cpu",
        "req_memory",
    }


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"private_token": SET_AND_ENCRYPTED}, "private_token"),
        ({"private_username": SET_AND_ENCRYPTED}, "private_username"),
        ({"envs": {"PASSWORD": SET_AND_ENCRYPTED}}, "the variable PASSWORD"),
        ({"envs": SECRETIVE.envs}, "the variable PASSWORD"),
    ],
)
async def test_what_the_api_shows_for_a_secret_is_never_sent_as_one(
    settings: Any, named: str
) -> None:
    call = Recorder([SHOWN])
    versions = Versions(call)
    with pytest.raises(InvalidRequest, match=f"^{named}: .*pass the secret itself"):
        await versions.create("arena", "v2", **NEEDED, **settings)
    with pytest.raises(InvalidRequest, match=f"^{named}: .*pass the secret itself"):
        await versions.update("arena", "v1", **settings)
    with pytest.raises(InvalidRequest, match=f"^{named}: .*pass the secret itself"):
        await versions.copy("arena", "v1", "v2", **settings)

    assert [said["operation"] for said in call.calls] == [GET_VERSION]


async def test_a_copy_needs_the_secrets_again() -> None:
    call = Recorder([SECRETIVE, SECRETIVE, SECRETIVE, VersionSaved(version=SHOWN)])
    versions = Versions(call)
    with pytest.raises(InvalidRequest, match="pass private_username and private_token again"):
        await versions.copy("arena", "v1", "v2")
    credentials: VersionSettings = {"private_username": "robot", "private_token": "canary-of-v2"}
    with pytest.raises(InvalidRequest, match="pass envs with all variables again; PASSWORD is"):
        await versions.copy("arena", "v1", "v2", **credentials)
    hidden = [EnvironmentVariable("PASSWORD", "canary-of-play", is_hidden=True)]
    credentials["envs"] = hidden
    await versions.copy("arena", "v1", "v2", **credentials)

    body = call.calls[-1]["body"]
    assert (body.private_username, body.private_token, body.envs) == (
        "robot",
        "canary-of-v2",
        tuple(hidden),
    )
    assert "canary" not in repr(call.calls)


async def test_a_copy_with_a_public_image_needs_no_credentials() -> None:
    private = attrs.evolve(SECRETIVE, envs=())
    call = Recorder([private, VersionSaved(version=SHOWN)])
    await Versions(call).copy("arena", "v1", "v2", private_username=None, private_token=None)

    assert call.calls[-1]["body"].private_token is None


@pytest.mark.parametrize("field", ["req_cpu", "req_memory"])
async def test_cpu_and_memory_of_a_version_cannot_be_changed(field: str) -> None:
    call = Recorder()
    settings: Any = {field: 512}
    with pytest.raises(InvalidRequest, match=f"cannot change {field} .* versions.copy"):
        await Versions(call).update("arena", "v1", **settings)

    assert call.calls == []


async def test_a_setting_that_no_version_has_is_a_type_error() -> None:
    unknown: Any = {"max_minutes": 5}
    with pytest.raises(TypeError, match="max_minutes"):
        await Versions(Recorder()).create("arena", "v1", **NEEDED, **unknown)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"req_memory": 2049}, "2048 MB is the most for 1024 CPU units"),
        ({"req_cpu": 99}, "req_cpu"),
        ({"docker_image": "Arena"}, "lower case"),
        ({"max_duration": 1441}, "max_duration"),
        ({"termination_grace_period_seconds": 4}, "termination_grace_period_seconds"),
        ({"restart_policy": "sometimes"}, "restart_policy"),
        ({"ports": [{"port": 7777}]}, "ports must be a list of VersionPortRequest"),
    ],
)
async def test_what_the_api_would_refuse_is_not_sent(wrong: Any, message: str) -> None:
    call = Recorder()
    with pytest.raises(InvalidRequest, match=message):
        await Versions(call).create("arena", "v1", **{**NEEDED, **wrong})

    assert call.calls == []


# ── lost answers ─────────────────────────────────────────────────────────────────────────────────


async def test_a_version_whose_answer_was_lost_is_read() -> None:
    call = Recorder([lost(), SHOWN])

    assert await Versions(call).create("arena", "v1", **NEEDED) is SHOWN
    assert [said["operation"] for said in call.calls] == [CREATE_VERSION, GET_VERSION]


@pytest.mark.parametrize(
    "found",
    [attrs.evolve(SHOWN, docker_tag="6"), NotFound("no such version"), lost()],
    ids=["an older one", "none", "unknown"],
)
async def test_a_version_that_is_not_the_one_asked_for_is_not_taken_for_it(found: Any) -> None:
    error = lost()
    with pytest.raises(NoAnswer) as caught:
        await Versions(Recorder([error, found])).create("arena", "v1", **NEEDED)

    assert caught.value is error


async def test_an_application_whose_answer_was_lost_is_read() -> None:
    found = Application(name="arena", is_active=True)

    assert await Applications(Recorder([lost(), found])).create("arena") is found


async def test_a_refused_create_reads_nothing() -> None:
    call = Recorder([NotFound("no such application")])
    with pytest.raises(NotFound):
        await Versions(call).create("arena", "v1", **NEEDED)

    assert len(call.calls) == 1
