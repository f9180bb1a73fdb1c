"""The public names are exported and can be imported, some of them lazily."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import attrs
import pytest

import edgegap_async
from edgegap_async import container, emulator, errors, models, observability, requests
from edgegap_async.api import models as api_models
from edgegap_async.api import requests as api_requests
from edgegap_async.api.resources import (
    applications,
    container_registry,
    deployments,
    endpoint_storages,
    locations,
    relays,
)

ROOT = Path(__file__).parents[2]


PUBLIC = [edgegap_async, errors, models, requests]


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_exported_name_can_be_imported(module: ModuleType) -> None:
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        exported = getattr(module, name)
        if inspect.isclass(exported):
            assert exported.__module__.startswith("edgegap_async")


def test_few_names_stand_at_the_top_and_each_stands_in_one_place_or_in_both() -> None:
    top = {*edgegap_async.__all__}
    others = [{*module.__all__} for module in (errors, models, requests)]

    assert len(top) <= 30
    assert len(set.union(*others)) == sum(map(len, others))
    for module in (errors, models, requests):
        for name in top & {*module.__all__}:
            assert getattr(module, name) is getattr(edgegap_async, name)


def test_only_packages_and_public_modules_have_all() -> None:
    package = ROOT / "edgegap_async"
    modules = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if path.name != "__init__.py" and "__all__ = " in path.read_text("utf-8")
    }

    assert modules == {"client.py", "errors.py", "models.py", "requests.py"}


@pytest.mark.parametrize(
    "module",
    [
        api_models,
        api_requests,
        applications,
        container_registry,
        deployments,
        endpoint_storages,
        locations,
        relays,
    ],
)
def test_every_value_that_callers_send_or_get_is_exported(module: ModuleType) -> None:
    classes = {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and attrs.has(value)
        and value.__module__.startswith(module.__name__)
        and not name.startswith("_")
    }

    assert classes
    assert classes <= {*models.__all__, *requests.__all__}


def test_the_import_of_the_package_imports_nothing() -> None:
    program = (
        "import sys, contextlib, importlib, typing\n"
        "before = set(sys.modules)\n"
        "import edgegap_async\n"
        "assert set(sys.modules) - before == {'edgegap_async'}\n"
        "assert not hasattr(edgegap_async, '__wrapped__')\n"
        "assert set(sys.modules) - before == {'edgegap_async'}\n"
        "assert issubclass(edgegap_async.errors.NotSent, edgegap_async.EdgegapError)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT)


def test_rarely_used_modules_are_imported_on_first_access() -> None:
    program = (
        "import sys, edgegap_async\n"
        "edgegap_async.EdgegapClient\n"
        "late = 'cluster', 'batch.batch', 'batch.plan', 'deployments.playable'\n"
        "late += 'pool.pool', 'pool.inventory'\n"
        "late += 'webhooks.receiver', 'emulator'\n"
        "late += 'http.resources.applications', 'http.resources.tags', 'api.register'\n"
        "late += 'api.resources.metrics', 'api.resources.private_fleets'\n"
        "late += 'relays', 'http.resources.relays', 'api.resources'\n"
        "assert not {f'edgegap_async.{name}' for name in late} & set(sys.modules)\n"
        "assert 'cattrs' not in sys.modules\n"
        "client = edgegap_async.EdgegapClient('token')\n"
        "assert 'cattrs' in sys.modules  # before the first call, which must not wait for it\n"
        "assert 'edgegap_async.http.resources.tags' not in sys.modules\n"
        "assert client.tags is client.tags\n"
        "assert set(edgegap_async.__all__) <= set(dir(edgegap_async))\n"
        "from edgegap_async import *\n"
        "assert ServerPool.__module__ == 'edgegap_async.pool.pool'\n"
        "assert 'ServerPool' in vars(edgegap_async)  # the second access finds it there\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT)


def test_an_unknown_name_is_named_in_the_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'ServerPol'"):
        edgegap_async.ServerPol  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize("module", [errors, models, requests, observability, container, emulator])
def test_the_error_for_a_name_of_another_module_says_which(module: ModuleType) -> None:
    names = {*module.__all__} - {*edgegap_async.__all__}
    assert names
    for name in names:
        place = rf"^{name} is in (edgegap_async\.models and )?{module.__name__}\b"
        with pytest.raises(ImportError, match=place):
            exec(f"from edgegap_async import {name}")
        with pytest.raises(AttributeError, match=place):
            getattr(edgegap_async, name)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert edgegap_async.__version__ == version("edgegap-async")
