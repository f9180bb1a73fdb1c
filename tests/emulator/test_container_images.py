"""The container registry of the emulator: tags of the settings and of versions, and their end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from bare_api import BareApi

from edgegap_async.emulator import Emulator, Image, Timings, sample_application

IMAGES = "/v1/container-registry/images"
HOST = "registry.example.com"
VERSION = {
    "docker_repository": HOST,
    "docker_image": "studio/arena/server",
    "req_cpu": 256,
    "req_memory": 512,
}


@pytest.fixture
async def api() -> AsyncIterator[BareApi]:
    """An emulator whose registry has an image with slashes in its name."""
    sample = sample_application()
    images = [
        Image(image=f"{HOST}/studio/arena/server", argv=("true",), tags=("v1", "v2")),
        Image(image=f"{HOST}/studio/arena/server:old", argv=("false",)),
    ]
    async with (
        Emulator([sample], images=images, timings=Timings.fast()) as emulator,
        aiohttp.ClientSession(emulator.url) as session,
    ):
        yield BareApi(emulator, session)


async def tags(api: BareApi, image: str = "arena/server") -> list[str]:
    """Returns the tags that the registry shows."""
    status, said = await api("GET", f"{IMAGES}/{image}/tags")
    assert status in {200, 404}, said
    return [one["tag"] for one in said.get("data", ())]


@pytest.mark.parametrize(
    "image", ["arena/server", "studio/arena/server", "arena%2Fserver", "studio%2Farena%2Fserver"]
)
async def test_an_image_is_named_with_its_slashes_and_with_its_project_or_without(
    api: BareApi, image: str
) -> None:
    assert await tags(api, image) == ["v1", "v2", "old"]


async def test_tags_come_in_pages_each_with_what_it_names(api: BareApi) -> None:
    _, said = await api("GET", f"{IMAGES}/arena/server/tags?page=2&limit=1")
    tag = said["data"][0]

    assert (tag["tag"], said["count"], said["pagination"]["has_next"]) == ("v2", 3, True)
    assert tag["artifact"]["remaining_tags"] == ["v1", "v2"]  # one program, so one artifact
    assert tag["artifact"]["image_hash"].startswith("sha256:")
    assert tag["artifact"]["artifact_deleted"] is False
    assert tag["last_push_at"]
    assert (await api("GET", f"{IMAGES}/unknown/tags"))[0] == 404
    assert (await api("GET", f"{IMAGES}/arena/server/tags?page=0"))[0] == 400


async def test_a_version_shows_its_tag(api: BareApi) -> None:
    assert await tags(api, "arena") == ["v1"]  # of the settings
    body = {**VERSION, "name": "v3", "docker_tag": "2026-11"}
    assert (await api("POST", "/v1/app/arena/version", json=body))[0] == 200

    assert await tags(api) == ["v1", "v2", "old", "2026-11"]


async def test_a_deleted_tag_is_gone_and_no_version_can_have_it(api: BareApi) -> None:
    status, said = await api("DELETE", f"{IMAGES}/arena/server/tags/v1")
    assert (status, said["deleted_tag"]) == (200, "v1")
    assert said["artifact"]["remaining_tags"] == ["v2"]
    assert said["artifact"]["artifact_deleted"] is False
    _, said = await api("DELETE", f"{IMAGES}/arena/server/tags/v2")
    assert said["artifact"]["artifact_deleted"] is True

    assert await tags(api) == ["old"]
    assert (await api("DELETE", f"{IMAGES}/arena/server/tags/v1"))[0] == 404
    body = {**VERSION, "name": "v4", "docker_tag": "v1"}
    status, said = await api("POST", "/v1/app/arena/version", json=body)
    assert (status, said["message"]) == (
        424,
        f"Unable to pull image {HOST}/studio/arena/server:v1: its tag was deleted",
    )
    api.emulator.reload([sample_application()])  # as a push of the tag
    assert "v1" in await tags(api)


async def test_a_bulk_delete_says_of_each_tag_what_became_of_it(api: BareApi) -> None:
    path = f"{IMAGES}/studio/arena/server/tags/bulk-delete"
    status, said = await api("POST", path, json={"tags": ["v1", "missing", "v1"]})

    assert status == 207
    assert [(one["tag"], one["status"]) for one in said["results"]] == [
        ("v1", 204),
        ("missing", 404),
        ("v1", 404),
    ]
    assert said["summary"] == {"total": 3, "success": 1, "failed": 2}
    assert await tags(api) == ["v2", "old"]
    wrong: list[dict[str, object]] = [{}, {"tags": []}, {"tags": "v1"}, {"tags": [1]}]
    for body in (*wrong, {"tags": ["a/b"]}):
        assert (await api("POST", path, json=body))[0] == 400
    unknown = f"{IMAGES}/unknown/tags/bulk-delete"
    assert (await api("POST", unknown, json={"tags": ["v1"]}))[0] == 404


async def test_tags_can_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "apps.toml"
    file.write_text(
        f'[[images]]\nimage = "{HOST}/arena"\nargv = ["true"]\ntags = ["v1", "v2"]\n', "utf-8"
    )
    async with Emulator(file) as emulator, aiohttp.ClientSession(emulator.url) as session:
        assert await tags(BareApi(emulator, session), "arena") == ["v1", "v2"]
