"""`help` shows each public field with its docstring."""

from __future__ import annotations

import copy
import pickle
import pydoc
import re

import attrs
import pytest

import edgegap_async
from edgegap_async import Outcome, PollingPolicy, errors, models, requests

CLASSES = {
    kind
    for module in (edgegap_async, errors, models, requests)
    for name in module.__all__
    if isinstance(kind := getattr(module, name), type) and attrs.has(kind)
}


@pytest.mark.parametrize("kind", sorted(CLASSES, key=str), ids=lambda kind: kind.__name__)
def test_each_field_has_its_docstring(kind: type) -> None:
    shown = pydoc.plain(pydoc.render_doc(kind))
    for field in attrs.fields(kind):
        documented = re.search(rf"^ \|  {field.name}\n \|      \S+", shown, re.MULTILINE)
        assert field.name.startswith("_") or documented, field.name


def test_a_docstring_is_the_one_below_the_field() -> None:
    shown = pydoc.plain(pydoc.render_doc(Outcome.ready_at))

    assert "When the program learnt that the deployment is READY, in UTC" in shown


def test_an_object_with_such_fields_is_copied_and_pickled() -> None:
    policy = PollingPolicy(interval=2.0)

    assert copy.deepcopy(policy) == policy
    assert pickle.loads(pickle.dumps(policy)) == policy
