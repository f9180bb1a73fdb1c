"""Applications and versions that calls have created, as records of the state and back.

A record has no value of a hidden variable and no program: which program an image stands for is said
by the settings, at each start anew. A version whose hidden values are missing cannot be deployed
until a call sets them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from edgegap_async.api.codec import dumps, read_answer, read_request, to_json
from edgegap_async.api.resources import applications as models

from .catalogue import Application
from .registry import Registry, StoredApplication, StoredVersion
from .state import application_record


def application_records(registry: Registry) -> dict[str, str]:
    """Returns the applications and versions that calls have created, as JSON texts by name."""
    records: dict[str, str] = {}
    for name, stored in registry.applications.items():
        versions = [
            {
                "shown": to_json(version.shown),
                "program": application_record(version.program),
                "missing": sorted(_hidden_names(version.program) | version.missing),
            }
            for version in stored.versions.values()
            if not version.is_from_settings
        ]
        if versions or not stored.is_from_settings:
            record = {"shown": to_json(stored.shown), "versions": versions}
            records[name] = json.dumps(record, ensure_ascii=False)
    return records


def _hidden_names(program: Application) -> frozenset[str]:
    names = frozenset(program.hidden_environment)
    return names if program.private_token is None else names | {"private_token"}


def restore_applications(registry: Registry, records: Iterable[dict[str, Any]]) -> None:
    """Takes over the applications and versions of records. Those of the settings stay."""
    for record in records:
        stored = StoredApplication(read_answer(models.Application, dumps(record["shown"])))
        for saved in record["versions"]:
            shown = read_answer(models.ApplicationVersion, dumps(saved["shown"]))
            program = read_request(Application, dumps(saved["program"]))
            missing = frozenset(map(str, saved["missing"]))
            stored.versions[shown.name] = StoredVersion(shown, program, missing=missing)
        registry.restore(stored)
