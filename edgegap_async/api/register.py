"""The table of all calls, derived from the modules that describe them.

Few programs need the table, so the client does not import this module.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from . import operations
from .operations import Operation
from .resources import (
    applications,
    container_registry,
    deployments,
    endpoint_storages,
    locations,
    metrics,
    private_fleets,
    relays,
)

_MODULES: Final[tuple[ModuleType, ...]] = (
    operations,
    metrics,
    private_fleets,
    applications,
    deployments,
    locations,
    relays,
    container_registry,
    endpoint_storages,
)

OPERATIONS: Final[tuple[Operation[object], ...]] = tuple(
    value for module in _MODULES for value in vars(module).values() if isinstance(value, Operation)
)
"""Every call: first those of the published page, then the others."""
