"""The Edgegap API on this machine, with real processes in place of the cloud's containers.

::

    async with Emulator(apps=[sample_application()]) as emulator:
        async with EdgegapClient(emulator.token, base_url=emulator.url) as client:
            ...

How the cloud behaves, and how it fails on demand, belongs here. The emulator shares `api` and
`errors` with the client and imports nothing else of it: the client must not be tested by itself.
By default it starts the programs that its settings name without a sandbox, and listens on loopback.
Linux.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if sys.platform != "linux":
    raise ImportError(
        f"the emulator of Edgegap needs Linux, not {sys.platform}: run it in WSL 2, a container or"
        " a virtual machine. The client runs on this system"
    )

if TYPE_CHECKING:
    from .catalogue import Application, AppPort, Fleet, Image, PrivateHost, sample_application
    from .connections import Deadlines
    from .deployments import LocalDeployment
    from .effects import (
        ActTwice,
        Delay,
        Dribble,
        Drop,
        Effect,
        HangUp,
        Hide,
        ProxyPage,
        Raw,
        Repeat,
        Respond,
        Truncate,
        WrongLength,
    )
    from .emulator import Emulator, check_file
    from .expectations import Expectation
    from .fault_tables import faults_from_tables
    from .faults import Fault, Faults
    from .recorded_requests import RecordedRequest
    from .relays import LocalRelaySession
    from .settings_file import Problem, load_apps
    from .simulation import Simulation
    from .status_events import StatusEvent
    from .timings import Timings

__all__ = [
    "ActTwice",
    "AppPort",
    "Application",
    "Deadlines",
    "Delay",
    "Dribble",
    "Drop",
    "Effect",
    "Emulator",
    "Expectation",
    "Fault",
    "Faults",
    "Fleet",
    "HangUp",
    "Hide",
    "Image",
    "LocalDeployment",
    "LocalRelaySession",
    "PrivateHost",
    "Problem",
    "ProxyPage",
    "Raw",
    "RecordedRequest",
    "Repeat",
    "Respond",
    "Simulation",
    "StatusEvent",
    "Timings",
    "Truncate",
    "WrongLength",
    "check_file",
    "faults_from_tables",
    "load_apps",
    "sample_application",
]

if not TYPE_CHECKING:  # a type checker would accept any name because of __getattr__
    # The first use of a public name imports them all; `command_line --help` uses none.
    _MODULES = (
        "catalogue",
        "connections",
        "deployments",
        "effects",
        "emulator",
        "expectations",
        "fault_tables",
        "faults",
        "recorded_requests",
        "relays",
        "settings_file",
        "simulation",
        "status_events",
        "timings",
    )

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for module in _MODULES:
            found = vars(import_module(f".{module}", __name__))
            globals().update((each, found[each]) for each in __all__ if each in found)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
