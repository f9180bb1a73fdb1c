"""A game server of another project: Minetest, as Debian packages it."""

from __future__ import annotations

import asyncio
import shutil
import socket

import pytest
from emulated_cloud import until

from edgegap_async import EdgegapClient
from edgegap_async.emulator import Application, AppPort, Emulator, Timings

_MINETEST = shutil.which("minetestserver", path="/usr/games:/usr/bin:/usr/local/bin")
_OPTIONS = ("--gameid", "devtest", "--world", "world")
_QUERY = b"\x4f\x45\x74\x03\x00\x00\x00\x01"  # as the public list of Minetest servers sends it
_ANSWER = b"\x4f\x45\x74\x03"

pytestmark = pytest.mark.skipif(
    _MINETEST is None, reason="needs Minetest: apt install minetest-server"
)


def _minetest(port: str, **settings: object) -> Application:
    return Application(
        name="minetest",
        version="v1",
        # The log is in its home, not in /var/log.
        argv=(str(_MINETEST), *_OPTIONS, "--logfile", "log.txt", "--port", port),
        time_to_deploy=60,
        **{"ports": (AppPort("game"),), **settings},  # type: ignore[arg-type]
    )


def _free_port() -> int:
    # Of TCP, for which connections that have just ended hold thousands of numbers.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("way", ["told its port", "fixed port", "bwrap"])
async def test_a_game_server_of_debian_answers_players_at_ready_and_ends_in_order(way: str) -> None:
    if way == "bwrap":
        if shutil.which("bwrap") is None:
            pytest.skip("needs bubblewrap: apt install bubblewrap")
        application = _minetest("{port:game}", sandbox="bwrap")
    elif way == "fixed port":
        number = _free_port()
        application = _minetest(str(number), ports=(AppPort("game", number=number),))
    else:
        application = _minetest("{port:game}")
    async with (
        Emulator([application], timings=Timings.fast()) as emulator,
        EdgegapClient(emulator.token, base_url=emulator.url) as client,
    ):
        async with client.run("minetest", "v1", users=[(48.9, 2.4)], timeout=90) as server:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
                player.setblocking(False)
                player.connect(("127.0.0.1", server.endpoint("game").port))
                async with asyncio.timeout(10):
                    await asyncio.get_running_loop().sock_sendall(player, _QUERY)
                    answer = await asyncio.get_running_loop().sock_recv(player, 1000)
            (deployment,) = emulator.cloud.deployments.values()
            output = deployment.output
        await until(lambda: deployment.status == "TERMINATED")

    assert answer.startswith(_ANSWER)
    assert "listening on" in output.text()
    assert "got SIGTERM, shutting down" in output.text()
    assert deployment.error_detail is None
