"""Ports of deployments: fixed numbers, forwarding, placeholders, ports that others have taken."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
from emulated_cloud import a_cloud, deployed, python_application, reached, until

from edgegap_async import Status
from edgegap_async.emulator import Application, AppPort, LocalDeployment
from edgegap_async.emulator.forwarder import PortForwarder
from edgegap_async.errors import InvalidRequest

ECHO = (
    "import os, socket, sys, time\n"
    "import threading\n"
    "port = int(sys.argv[1])\n"
    "udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "udp.bind(('127.0.0.1', port))\n"
    "tcp = socket.create_server(('127.0.0.1', port))\n"
    "def serve():\n"
    "  while True:\n"
    "    one, _ = tcp.accept()\n"
    "    while data := one.recv(65536): one.sendall(data.upper())\n"
    "    one.close()\n"
    "threading.Thread(target=serve, daemon=True).start()\n"
    "while True:\n"
    "  data, player = udp.recvfrom(65536)\n"
    "  udp.sendto(data.upper(), player)\n"
)


def _free_port() -> int:
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return int(tcp.getsockname()[1])


def _fixed_application(number: int, protocol: str = "TCP/UDP") -> Application:
    application = python_application(
        ECHO, ports=(AppPort("game", protocol, number=number),), time_to_deploy=20
    )
    return attrs.evolve(application, argv=(*application.argv, str(number)))


@contextmanager
def _player(port: int, address: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.setblocking(False)
        player.connect((address, port))
        yield player


async def _asked(player: socket.socket, text: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        await loop.sock_sendall(player, text)
        return await loop.sock_recv(player, 65536)


@asynccontextmanager
async def _ready(application: Application, **settings: Any) -> AsyncIterator[LocalDeployment]:
    async with a_cloud(application, **settings) as cloud:
        yield await reached(await deployed(cloud, application), Status.READY)


async def test_a_server_with_a_fixed_port_is_reached_by_udp_and_tcp_at_its_external_port() -> None:
    number = _free_port()
    async with _ready(_fixed_application(number)) as deployment:
        port = deployment.deployment().ports["game"]
        assert port.external is not None
        assert port.internal == number != port.external
        assert port.link == f"127.0.0.1:{port.external}"
        with _player(port.external) as one, _player(port.external) as other:
            assert await _asked(one, b"one") == b"ONE"
            assert await _asked(other, b"x" * 1400) == b"X" * 1400
            assert await _asked(one, b"again") == b"AGAIN"
        reader, writer = await asyncio.open_connection("127.0.0.1", port.external)
        writer.write(b"y" * 500_000)
        writer.write_eof()
        assert await reader.read() == b"Y" * 500_000
        writer.close()
        external = port.external

    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", external))  # the forwarder has given it back
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(("127.0.0.1", external))


async def test_a_server_with_a_fixed_port_starts_again_behind_the_same_external_port() -> None:
    number = _free_port()
    application = _fixed_application(number, "UDP")
    application = attrs.evolve(application, restart_policy="always")
    async with _ready(application) as deployment:
        assert deployment.process is not None
        external = deployment.port_numbers["game"]
        first = deployment.process
        await deployment.process.stop(0)
        await until(lambda: deployment.process not in {None, first})
        with _player(external) as player:
            async with asyncio.timeout(20):
                while True:
                    player.send(b"hello")
                    await asyncio.sleep(0.02)
                    try:
                        assert player.recv(100) == b"HELLO"
                        break
                    except BlockingIOError:
                        continue


async def test_the_second_deployment_with_a_fixed_port_is_an_error_that_says_why() -> None:
    number = _free_port()
    application = _fixed_application(number, "UDP")
    async with a_cloud(application) as cloud:
        first = await reached(await deployed(cloud, application), Status.READY)
        second = await reached(await deployed(cloud, application), Status.ERROR)

        assert f"port {number} of this machine is in use" in (second.error_detail or "")
        assert "ARBITRIUM_PORT_NAME_INTERNAL" in (second.error_detail or "")
        first.stop()
        await reached(first, Status.TERMINATED)
        await reached(await deployed(cloud, application), Status.READY)


async def test_a_second_deployment_that_follows_its_variables_gets_another_port() -> None:
    number = _free_port()
    application = python_application(
        "import os, sys\nsys.argv[1:] = [os.environ['ARBITRIUM_PORT_GAME_INTERNAL']]\n" + ECHO,
        ports=(AppPort("game", "TCP/UDP", number=number),),
    )
    async with a_cloud(application) as cloud:
        first = await reached(await deployed(cloud, application), Status.READY)
        second = await reached(await deployed(cloud, application), Status.READY)

        assert first.ports["game"].internal == number
        game = second.ports["game"]
        assert game.internal == game.external == second.port_numbers["game"]
        for deployment in (first, second):
            with _player(deployment.port_numbers["game"]) as player:
                assert await _asked(player, b"hello") == b"HELLO"


async def test_two_ports_may_have_the_same_number() -> None:
    number = _free_port()
    ports = (AppPort("game", number=number), AppPort("query", "TCP", number=number))
    async with _ready(attrs.evolve(_fixed_application(number), ports=ports)) as deployment:
        game, query = deployment.ports["game"], deployment.ports["query"]
        assert game.internal == query.internal == number
        assert game.external != query.external
        reader, writer = await asyncio.open_connection("127.0.0.1", query.external)
        writer.write(b"hello")
        assert await reader.read(5) == b"HELLO"
        writer.close()


async def test_traffic_is_counted_where_each_port_is_forwarded() -> None:
    application = _fixed_application(_free_port())
    async with _ready(application, metrics_interval=0.02) as deployment:
        external = deployment.port_numbers["game"]
        with _player(external) as player:
            assert await _asked(player, b"x" * 1400) == b"X" * 1400
        reader, writer = await asyncio.open_connection("127.0.0.1", external)
        writer.write(b"y" * 100_000)
        writer.write_eof()
        assert await reader.read() == b"Y" * 100_000
        writer.close()

        def totals() -> list[float | None]:
            total = deployment.samples.series(start=None, end=None, step=None).total
            return [*total.receive_total.datasets[-1:], *total.transmit_total.datasets[-1:]]

        await until(lambda: totals() == [101_400, 101_400])


async def test_traffic_is_unknown_if_the_machine_does_not_carry_that_of_each_port() -> None:
    ports = (AppPort("game", number=_free_port()), AppPort("direct", "TCP", to_check=False))
    application = _fixed_application(ports[0].number or 0, "UDP")
    async with _ready(attrs.evolve(application, ports=ports), metrics_interval=0.02) as deployment:
        with _player(deployment.port_numbers["game"]) as player:
            assert await _asked(player, b"x") == b"X"
        await until(
            lambda: len(deployment.samples.series(start=None, end=None, step=None).cpu.datasets) > 1
        )
        measured = deployment.samples.series(start=None, end=None, step=None)

    series = (measured.network.receive, measured.network.transmit, measured.total.receive_total)
    assert [one.datasets for one in series] == [(), (), ()]
    assert {row["network_receive"] for row in measured.rows()} == {None}


async def test_placeholders_are_filled_in_arguments_and_in_environment_values() -> None:
    application = python_application(
        "import json, os, sys, time\n"
        "print(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
        "time.sleep(60)",
        ports=(AppPort("game", to_check=False), AppPort("fixed", to_check=False, number=7777)),
        environment={"GAME": "udp://0.0.0.0:{port:game}", "PYTHON": "{python}"},
        hidden_environment={"FIXED": "{port:fixed}/{port:fixed}"},
    )
    application = attrs.evolve(
        application, argv=(*application.argv, "--ports={port:game},{port:fixed}")
    )
    async with _ready(application) as deployment:
        await until(lambda: "\n" in deployment.output.text())
        arguments, variables = json.loads(deployment.output.text())
        numbers = deployment.port_numbers

    assert arguments == [f"--ports={numbers['game']},7777"]
    assert variables["GAME"] == f"udp://0.0.0.0:{numbers['game']}"
    assert variables["FIXED"] == "7777/7777"
    assert variables["PYTHON"].startswith("/")
    assert variables["ARBITRIUM_PORT_FIXED_INTERNAL"] == "7777"
    assert variables["ARBITRIUM_PORT_FIXED_EXTERNAL"] == str(numbers["fixed"])
    mapping = json.loads(variables["ARBITRIUM_PORTS_MAPPING"])["ports"]["fixed"]
    assert (mapping["internal"], mapping["external"]) == (7777, numbers["fixed"])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"environment": {"A": "{port:chat}"}}, r"variable A has \{port:chat\}"),
        ({"hidden_environment": {"A": "{port:chat}"}}, r"variable A has \{port:chat\}"),
        ({"environment": {"A": "{port}"}}, r"variable A has \{port\}.*write \{port:NAME\}"),
        ({"argv": ["x", "{port:}"]}, r"argv has \{port:\}"),
        ({"argv": ["x", "{port: game }"]}, r"argv has \{port: game \}"),
        ({"argv": ["x", "{port}"]}, r"argv has \{port\}.*write \{port:NAME\}"),
    ],
)
def test_a_placeholder_that_cannot_be_filled_is_refused(
    settings: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        python_application("pass", ports=(AppPort("game"),), **settings)


@pytest.mark.parametrize("number", [0, 65536, 1.5, "7777"])
def test_a_number_that_is_no_port_is_refused(number: object) -> None:
    with pytest.raises(InvalidRequest, match=r"AppPort\.number"):
        AppPort("game", number=number)  # type: ignore[arg-type]


async def test_row_51_the_error_of_a_server_that_opens_other_ports_names_them() -> None:
    port = _free_port()
    application = python_application(
        "import socket, time\n"
        "a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"a.bind(('', {port}))\n"
        f"b = socket.create_server(('::1', {port}), family=socket.AF_INET6)\n"
        "time.sleep(60)",
        ports=(AppPort("game"),),
        time_to_deploy=1,
    )
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)

    assert (deployment.error_detail or "").endswith(
        f"it has opened [::1]:{port}/tcp, 0.0.0.0:{port}/udp: if that is its port, set `number` of"
        " the port"
    ), deployment.error_detail


@pytest.mark.parametrize("address", ["::1", "127.0.0.2"])
async def test_row_52_a_port_that_no_player_can_reach_is_not_ready(address: str) -> None:
    family = "AF_INET6" if ":" in address else "AF_INET"
    application = python_application(
        "import socket, sys, time\n"
        f"a = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n"
        f"a.bind(('{address}', int(sys.argv[1])))\n"
        "time.sleep(60)",
        ports=(AppPort("game"),),
        time_to_deploy=1,
    )
    application = attrs.evolve(application, argv=(*application.argv, "{port:game}"))
    async with a_cloud(application) as cloud:
        deployment = await reached(await deployed(cloud, application), Status.ERROR)

    assert address in (deployment.error_detail or "")


@pytest.mark.parametrize("after", ["sys.exit(1)", "time.sleep(60)"], ids=["exits", "goes on"])
async def test_row_53_a_port_that_another_program_has_taken_is_exchanged(after: str) -> None:
    application = python_application(
        "import os, socket, sys, time\n"
        "while not os.path.exists('go'): time.sleep(0.01)\n"
        "a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "try: a.bind(('', int(sys.argv[1])))\n"
        f"except OSError: {after}\n"
        "time.sleep(60)",
        ports=(AppPort("game"),),
        time_to_deploy=20,
    )
    application = attrs.evolve(
        application,
        argv=(
            "/bin/sh",
            "-c",
            'sleep 0.2; touch go; exec "$@"',
            "sh",
            *application.argv,
            "{port:game}",
        ),
    )
    async with a_cloud(application) as cloud:
        deployment = await deployed(cloud, application)
        first = deployment.port_numbers["game"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
            squatter.bind(("127.0.0.1", first))
            await reached(deployment, Status.READY)

        assert deployment.port_numbers["game"] != first
        assert deployment.ports["game"].external == deployment.port_numbers["game"]


async def test_row_53_a_server_whose_ports_are_always_taken_is_an_error() -> None:
    application = python_application(
        "import socket, sys, time\n"
        "a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "a.bind(('', int(sys.argv[1])))\n",
        ports=(AppPort("game"),),
        time_to_deploy=20,
    )
    application = attrs.evolve(application, argv=(*application.argv, "{port:game}"))
    numbers = range(30200, 30203)
    async with a_cloud(application, port_range=numbers, port_reuse_delay=60) as cloud:
        deployment = await deployed(cloud, application)
        squatters = []
        for port in numbers:
            squatter = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            squatter.bind(("127.0.0.1", port))
            squatters.append(squatter)
        await reached(deployment, Status.ERROR)
        for squatter in squatters:
            squatter.close()

    assert "no port is left" in (deployment.error_detail or "")


async def test_row_53_a_forwarder_whose_port_is_taken_gets_another() -> None:
    number = _free_port()
    application = _fixed_application(number, "UDP")
    async with a_cloud(application) as cloud:
        deployment = await deployed(cloud, application)
        first = deployment.port_numbers["game"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as squatter:
            squatter.bind(("127.0.0.1", first))
            await reached(deployment, Status.READY)

        assert deployment.port_numbers["game"] != first
        with _player(deployment.port_numbers["game"]) as player:
            assert await _asked(player, b"there") == b"THERE"


async def test_a_fixed_port_is_forwarded_on_the_address_of_the_emulator() -> None:
    application = _fixed_application(_free_port(), "TCP/UDP")
    async with a_cloud(application, host="127.0.0.2") as cloud:
        deployment = await reached(await deployed(cloud, application), Status.READY)
        external = deployment.port_numbers["game"]
        with _player(external, "127.0.0.2") as player:
            assert await _asked(player, b"there") == b"THERE"
        with _player(external) as player, pytest.raises(ConnectionRefusedError):
            await _asked(player, b"there")


# ── forwarder ────────────────────────────────────────────────────────────────────────────────────


async def test_the_player_who_was_silent_for_longest_makes_room_for_another() -> None:
    external, internal = _free_port(), _free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", internal))
        forwarder = await PortForwarder.open([("udp", external, internal)])
        seen: set[int] = set()
        for _ in range(300):
            with _player(external) as player:
                player.send(b"x")
                _, (_, source) = await asyncio.to_thread(server.recvfrom, 100)
                seen.add(source)
        with _player(external) as player:
            player.send(b"last")
            _, source = await asyncio.to_thread(server.recvfrom, 100)
            server.sendto(b"answer", source)
            assert await asyncio.get_running_loop().sock_recv(player, 100) == b"answer"
        forwarder.close()

    assert len(seen) > 250


async def test_without_a_server_datagrams_are_lost_and_connections_end() -> None:
    external, internal = _free_port(), _free_port()
    forwarder = await PortForwarder.open([("udp", external, internal), ("tcp", external, internal)])
    with _player(external) as player:
        for _ in range(5):
            player.send(b"x")
            await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", external)
    assert await reader.read() == b""
    writer.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", internal))
        with _player(external) as player:
            player.send(b"now")
            assert await asyncio.to_thread(server.recv, 100) == b"now"
    forwarder.close()


async def test_a_forwarder_that_is_closed_ends_its_connections() -> None:
    external, internal = _free_port(), _free_port()
    with socket.create_server(("127.0.0.1", internal)):
        forwarder = await PortForwarder.open([("tcp", external, internal)])
        reader, writer = await asyncio.open_connection("127.0.0.1", external)
        writer.write(b"x")
        await asyncio.sleep(0.05)
        forwarder.close()

        assert await reader.read() == b""
        writer.close()


async def test_a_forwarder_that_cannot_bind_leaves_nothing_open() -> None:
    external, internal = _free_port(), _free_port()
    with socket.create_server(("127.0.0.1", external)):
        with pytest.raises(OSError, match="in use"):
            await PortForwarder.open([("udp", external, internal), ("tcp", external, internal)])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", external))
