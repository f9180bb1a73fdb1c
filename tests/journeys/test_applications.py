"""Applications and versions, from the client to the emulator and back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgegap_async import EdgegapClient, nearest
from edgegap_async.emulator import Drop, Emulator, Fault, Image, Timings, sample_application
from edgegap_async.errors import BadRequest, Conflict, ImageUnavailable, NotFound
from edgegap_async.models import ApplicationVersion, Region
from edgegap_async.requests import VersionPortRequest, VersionSettings

ARENA = sample_application()
IMAGE = "registry.example.com/studio/arena"
CREDENTIALS: VersionSettings = {"private_username": "robot", "private_token": "canary-registry"}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    images = [
        Image(image=f"{IMAGE}:7", argv=ARENA.argv),
        Image(
            image=f"{IMAGE}-private",
            argv=ARENA.argv,
            private_username="robot",
            private_token="canary-registry",
        ),
    ]
    async with Emulator([ARENA], images=images, timings=Timings.fast()) as emulator:
        yield emulator


async def create(
    client: EdgegapClient, name: str, image: str = "studio/arena", tag: str = "7", **settings: Any
) -> ApplicationVersion:
    return await client.versions.create(
        "tetris",
        name,
        docker_repository="registry.example.com",
        docker_image=image,
        docker_tag=tag,
        req_cpu=1024,
        req_memory=1024,
        ports=[VersionPortRequest(port=0, protocol="UDP", name="game")],
        **settings,
    )


async def test_applications_are_listed_page_by_page_and_read() -> None:
    names = [f"arena-{number}" for number in range(5)]
    async with (
        Emulator([sample_application(name=name) for name in names]) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url) as client,
    ):
        found = [application.name async for application in client.applications.list(limit=2)]
        first = await client.applications.list(limit=2)
        sent = client.requests_sent

        assert found == names
        assert (len(first.applications), first.total_count, sent) == (2, 5, 4)
        assert (await client.applications.get("arena-3")).is_active
        with pytest.raises(NotFound):
            await client.applications.get("arena-9")


async def test_a_version_lives_from_its_creation_to_its_end(client: EdgegapClient) -> None:
    made = await client.applications.create("tetris")
    version = await create(client, "v1", max_duration=-1, envs={"MODE": "duel"})
    copied = await client.versions.copy("tetris", "v1", "v2", req_memory=2048)
    renamed = await client.versions.update("tetris", "v2", name="v3", is_active=False)

    assert (made.is_active, version.max_duration, copied.req_memory) == (True, -1, 2048)
    assert (copied.ports, copied.envs, renamed.is_active) == (version.ports, version.envs, False)
    with pytest.raises(Conflict):
        await client.versions.copy("tetris", "v1", "v3")
    with pytest.raises(BadRequest):
        await client.deploy("tetris", "v3", users=["192.0.2.1"])
    async with client.run("tetris", "v1", users=["192.0.2.1"], timeout=30) as server:
        assert server.endpoint("game").port
    await client.versions.delete("tetris", "v3")
    assert [one.name async for one in client.versions.list("tetris", limit=1)] == ["v1"]
    await client.applications.update("tetris", name="tetris-2")
    await client.applications.delete("tetris-2")
    with pytest.raises(NotFound):
        await client.versions.get("tetris-2", "v1")


async def test_the_error_says_what_is_wrong_with_an_image(client: EdgegapClient) -> None:
    await client.applications.create("tetris")
    private, wrong = "studio/arena-private", {**CREDENTIALS, "private_token": "canary-other"}
    cases: list[tuple[str, dict[str, Any]]] = [
        ("image", {"image": "studio/chess"}),
        ("tag", {"tag": "8"}),
        ("credentials", {"image": private}),
        ("credentials", {"image": private, **wrong}),
        ("credentials", {"image": private, **wrong, "verify_image": True}),
    ]
    for suspect, settings in cases:
        with pytest.raises(ImageUnavailable, match=f"Check its {suspect}$") as caught:
            await create(client, "v1", **settings)
        assert caught.value.suspects == (suspect,)
        assert f"(image {caught.value.image})" in str(caught.value)
        assert "canary" not in str(caught.value)
    assert (await create(client, "v1", private, **CREDENTIALS)).private_token != "canary-registry"


async def test_a_version_whose_answer_is_lost_is_there(
    emulator: Emulator, client: EdgegapClient
) -> None:
    for operation in ("create_application", "create_version", "delete_version"):
        emulator.faults.add(Fault(operation, Drop()))
    await client.applications.create("tetris")
    version = await create(client, "v1")
    await client.versions.delete("tetris", "v1")

    assert (version.name, version.docker_tag) == ("v1", "7")
    assert [one.name async for one in client.versions.list("tetris")] == []


async def test_the_beacons_of_the_emulator_answer(client: EdgegapClient) -> None:
    replies = await nearest(client.locations.beacons(limit=10), attempts=1, timeout=10)
    cities = {reply.beacon.location.city for reply in replies if reply.beacon.location}

    assert (len(replies), len(cities)) == (26, 26)
    assert {reply.protocol for reply in replies} == {"udp"}


async def test_a_report_and_addresses_reach_the_emulator(
    emulator: Emulator, client: EdgegapClient
) -> None:
    server = await client.deploy("arena", "v1", users=["192.0.2.1"])
    await client.deployments.report(server.request_id, "lag", {"players": 4})
    await server.stop()
    [(reported, report)] = emulator.cloud.reports
    located = await client.ip_addresses.locate_many(["8.8.8.8"] * 21)

    assert (reported, report.reason) == (server.request_id, "lag")
    assert (await client.ip_addresses.own()).public_ip == "127.0.0.1"
    assert located[0].location is not None
    assert located[0].location.country == Region(code="US")
    assert located[20] == await client.ip_addresses.locate("8.8.8.8")
