"""The table of operations by itself. `test_contract` compares it with reference and emulator."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import attrs
import pytest

from edgegap_async.api import operations, resources
from edgegap_async.api.operations import Auth, Operation
from edgegap_async.api.register import OPERATIONS
from edgegap_async.api.resources import deployments


def test_the_table_has_every_constant_of_the_modules_once() -> None:
    names = [module.name for module in pkgutil.iter_modules(resources.__path__)]
    modules = [operations, *(import_module(f"{resources.__name__}.{name}") for name in names)]
    constants = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Operation)
    ]

    assert set(OPERATIONS) == set(constants)
    assert len(OPERATIONS) == len(constants)
    assert len({operation.name for operation in OPERATIONS}) == 55
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == 55


def test_only_calls_of_a_deployment_about_itself_carry_its_own_token() -> None:
    own = [operation for operation in OPERATIONS if operation.auth is Auth.DEPLOYMENT_TOKEN]

    assert own == [
        operations.STOP_SELF,
        deployments.GET_CONTEXT,
        deployments.CREATE_CONTEXT_TAG,
        deployments.DELETE_CONTEXT_TAG,
    ]


def test_an_operation_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        operations.DEPLOY.limit = 1000  # type: ignore[misc]


def test_an_operation_equals_only_itself_and_can_be_a_key() -> None:
    twin = attrs.evolve(operations.DEPLOY)

    assert twin != operations.DEPLOY
    assert {operations.DEPLOY: 1, twin: 2}[operations.DEPLOY] == 1
