"""The table of operations by itself. `test_contract` compares it with reference and emulator."""

from __future__ import annotations

import attrs
import pytest

from edgegap_async.api import operations
from edgegap_async.api.operations import OPERATIONS, Auth, Operation


def test_the_table_has_every_constant_of_the_module_once() -> None:
    constants = [value for value in vars(operations).values() if isinstance(value, Operation)]

    assert list(OPERATIONS) == constants
    assert len({operation.name for operation in OPERATIONS}) == 16
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == 16


def test_only_self_stop_carries_the_deployments_own_token() -> None:
    own = [operation for operation in OPERATIONS if operation.auth is Auth.DEPLOYMENT_TOKEN]

    assert own == [operations.STOP_SELF]


def test_an_operation_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        operations.DEPLOY.limit = 1000  # type: ignore[misc]


def test_an_operation_equals_only_itself_and_can_be_a_key() -> None:
    twin = attrs.evolve(operations.DEPLOY)

    assert twin != operations.DEPLOY
    assert {operations.DEPLOY: 1, twin: 2}[operations.DEPLOY] == 1
