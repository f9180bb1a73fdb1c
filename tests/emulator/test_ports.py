"""Port numbers for game servers."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from edgegap_async.emulator.ports import NoFreePort, Ports


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _free(count: int) -> range:
    """A range of ports, none of which any program has."""
    for first in range(21000, 29000, count):
        probe = Ports(range(first, first + count), Clock())
        try:
            probe.allocate(count)
        except NoFreePort:
            continue
        finally:
            probe.close()
        return range(first, first + count)
    raise AssertionError("no free ports")


def test_row_53_no_port_is_given_out_twice() -> None:
    numbers = _free(6)
    ports = Ports(numbers, Clock())

    taken = [*ports.allocate(2), *ports.allocate(4)]

    assert sorted(taken) == list(numbers)
    ports.close()


def test_row_53_a_port_is_not_used_again_before_the_reuse_delay() -> None:
    clock = Clock()
    ports = Ports(_free(1), clock, reuse_delay=60)
    taken = ports.allocate(1)
    ports.release(taken)
    ports.release(taken)

    clock.now += 59
    with pytest.raises(NoFreePort):
        ports.allocate(1)
    clock.now += 1
    assert ports.allocate(1) == taken
    ports.close()


def test_with_too_few_free_ports_none_is_allocated() -> None:
    numbers = _free(3)
    ports = Ports(numbers, Clock())

    with pytest.raises(NoFreePort):
        ports.allocate(4)

    assert len(ports.allocate(3)) == 3
    ports.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_row_53_a_port_that_another_program_uses_is_not_given_out(kind: socket.SocketKind) -> None:
    (number,) = numbers = _free(1)
    with socket.socket(socket.AF_INET, kind) as squatter:
        squatter.bind(("127.0.0.1", number))

        with pytest.raises(NoFreePort):
            Ports(numbers, Clock()).allocate(1)


def test_row_53_two_emulators_never_get_the_same_port() -> None:
    numbers = _free(2)
    one, other = Ports(numbers, Clock()), Ports(numbers, Clock())

    taken = {*one.allocate(1), *other.allocate(1)}

    assert taken == set(numbers)
    with pytest.raises(NoFreePort):
        other.allocate(1)
    one.close()
    other.close()


def test_no_ports_at_all_are_enough_for_a_game_without_any() -> None:
    assert Ports(range(0), Clock()).allocate(0) == ()


_WORKER = """
import sys, time
from edgegap_async.emulator.ports import Ports
ports = Ports(range(*map(int, sys.argv[1:])), time.monotonic)
print(*(ports.allocate(1)[0] for _ in range(50)), flush=True)
sys.stdin.read()
"""


def test_row_53_eight_programs_at_once_never_get_the_same_port() -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, "21000", "21700"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    taken: list[str] = []
    for worker in workers:
        assert worker.stdout is not None
        taken += worker.stdout.readline().split()
    for worker in workers:
        worker.communicate()

    assert len(taken) == len(set(taken)) == 400
