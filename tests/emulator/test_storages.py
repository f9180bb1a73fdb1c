"""Endpoint storages and pull profiles of the emulator. No answer and no record has a secret key."""

from __future__ import annotations

from typing import Any

import pytest
from bare_api import BareApi

STORAGE = "/v1/storage/endpoint"
SECRET = "canary-secret-access-key"
LOGS = {
    "name": "logs",
    "access_key_id": "AKIDEXAMPLE",
    "secret_access_key": SECRET,
    "endpoint": "https://s3.example.com",
    "bucket": "arena",
}
MAPS = {
    "name": "maps",
    "source": "/arena/maps",
    "source_type": "Folder",
    "destination": "/usr/share/maps",
}


async def test_a_storage_is_created_read_changed_and_deleted(api: BareApi) -> None:
    status, made = await api("POST", STORAGE, json=LOGS)
    shown = {name: value for name, value in LOGS.items() if name != "secret_access_key"}
    times = {name: made.pop(name) for name in ("create_time", "last_updated")}
    assert (status, made) == (200, {**shown, "output_format": "TEXT"})
    assert all(times.values())
    assert (await api("POST", STORAGE, json=LOGS))[0] == 400

    change = {"name": "kept", "output_format": "NDJSON", "secret_access_key": f"{SECRET}-2"}
    _, changed = await api("PATCH", f"{STORAGE}/logs", json=change)
    assert (changed["name"], changed["output_format"], changed["bucket"]) == (
        "kept",
        "NDJSON",
        "arena",
    )
    assert changed["create_time"] == times["create_time"]
    assert await api("GET", f"{STORAGE}/kept") == (200, changed)
    assert (await api("GET", f"{STORAGE}/logs"))[0] == 404
    assert await api("DELETE", f"{STORAGE}/kept") == (204, None)
    for method in ("GET", "PATCH", "DELETE"):
        options: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        assert (await api(method, f"{STORAGE}/kept", **options))[0] == 404


async def test_no_answer_and_no_record_has_a_secret_key(api: BareApi) -> None:
    answers = [
        await api("POST", STORAGE, json=LOGS),
        await api("GET", f"{STORAGE}/logs"),
        await api("PATCH", f"{STORAGE}/logs", json={"secret_access_key": f"{SECRET}-2"}),
        await api("GET", "/v1/storage/endpoints"),
        await api("POST", STORAGE, json={**LOGS, "name": "", "secret_access_key": SECRET}),
        await api("POST", STORAGE, json={**LOGS, "secret_access_key": f"{SECRET}\n"}),
    ]

    assert SECRET not in repr(answers)
    assert SECRET not in repr(api.emulator.requests)
    assert SECRET not in repr(vars(api.emulator.cloud.storages))


async def test_storages_come_in_pages(api: BareApi) -> None:
    for number in range(3):
        await api("POST", STORAGE, json={**LOGS, "name": f"logs-{number}"})
    _, page = await api("GET", "/v1/storage/endpoints?page=2&limit=2")

    assert [one["name"] for one in page["endpoints"]] == ["logs-2"]
    assert (page["total_count"], page["pagination"]["has_previous"]) == (3, True)
    assert (await api("PATCH", f"{STORAGE}/logs-0", json={"name": "logs-1"}))[0] == 400


async def test_a_pull_profile_is_created_read_changed_and_deleted(api: BareApi) -> None:
    await api("POST", STORAGE, json=LOGS)
    path = f"{STORAGE}/logs/pull-profile"
    status, made = await api("POST", path, json=MAPS)
    assert (status, {name: made[name] for name in MAPS}) == (200, MAPS)
    assert (await api("POST", path, json=MAPS))[0] == 400
    assert (await api("POST", f"{STORAGE}/unknown/pull-profile", json=MAPS))[0] == 404

    _, changed = await api("PATCH", f"{path}/maps", json={"name": "all", "source_type": "File"})
    assert (changed["name"], changed["source_type"], changed["source"]) == (
        "all",
        "File",
        "/arena/maps",
    )
    assert await api("GET", f"{path}/all") == (200, changed)
    _, page = await api("GET", f"{STORAGE}/logs/pull-profiles?page=1&limit=5")
    assert (page["pull_profiles"], page["total_count"]) == ([changed], 1)
    assert await api("DELETE", f"{path}/all") == (204, None)
    assert (await api("GET", f"{path}/all"))[0] == 404


async def test_a_profile_is_linked_to_versions_that_exist(api: BareApi) -> None:
    await api("POST", STORAGE, json=LOGS)
    await api("POST", f"{STORAGE}/logs/pull-profile", json=MAPS)
    path = f"{STORAGE}/logs/pull-profile/maps/app/arena/version/v1"

    status, link = await api("PUT", path)
    assert (status, link["app"], link["app_version"]) == (200, "arena", "v1")
    assert (link["endpoint"], link["pull_profile"]) == ("logs", "maps")
    assert (await api("PUT", path))[1]["create_time"] == link["create_time"]  # it is linked already
    assert (await api("PUT", path.replace("v1", "v9")))[0] == 404
    assert (await api("PUT", path.replace("maps", "unknown")))[0] == 404
    assert await api("DELETE", path) == (204, None)
    assert (await api("DELETE", path))[0] == 404


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "s3.example.com"},
        {"output_format": "XML"},
        {"secret_access_key": " "},
        {"name": "a/b"},
        {"bucket": ""},
        {"unknown": 1},
    ],
)
async def test_a_body_that_the_api_would_not_understand_is_400(
    api: BareApi, change: dict[str, Any]
) -> None:
    status, said = await api("POST", STORAGE, json=LOGS | change)

    assert status == 400
    assert said["message"]
    assert api.emulator.cloud.storages.by_name == {}
