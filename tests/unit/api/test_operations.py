"""The table of calls: what can be said of it without sending any. See also `test_contract`."""

from __future__ import annotations

import attrs
import pytest

from edgegap_async.api import operations as endpoints
from edgegap_async.api.operations import OPERATIONS, Auth, Operation


def test_the_table_holds_every_constant_of_the_module_once() -> None:
    constants = [value for value in vars(endpoints).values() if isinstance(value, Operation)]

    assert list(OPERATIONS) == constants
    assert len({operation.name for operation in OPERATIONS}) == 16
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == 16


def test_only_self_stop_carries_the_deployments_own_token() -> None:
    own = [operation for operation in OPERATIONS if operation.auth is Auth.DEPLOYMENT_TOKEN]

    assert own == [endpoints.STOP_SELF]


def test_an_operation_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        endpoints.DEPLOY.limit = 1000  # type: ignore[misc]  # what is tested


def test_an_operation_is_equal_to_itself_alone_and_can_be_a_key() -> None:
    twin = attrs.evolve(endpoints.DEPLOY)

    assert twin != endpoints.DEPLOY
    assert {endpoints.DEPLOY: 1, twin: 2}[endpoints.DEPLOY] == 1
