"""The table of all calls, derived from the modules that describe them.

Few programs need the table, so the client does not import this module.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final

from . import operations
from .operations import operations_of
from .resources import (
    applications,
    container_registry,
    deployments,
    endpoint_storages,
    locations,
    relays,
)

_MODULES: Final[tuple[ModuleType, ...]] = (
    operations,
    applications,
    deployments,
    locations,
    relays,
    container_registry,
    endpoint_storages,
)

OPERATIONS: Final = tuple(
    operation for module in _MODULES for operation in operations_of(vars(module))
)
"""Every call: first those of the published page, in its order, then the others."""
