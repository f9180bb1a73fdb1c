"""Measures the CPU time of decoding an answer against `json.loads` of the same bytes.

The answers are a status and a page of 100 rows, without a network. An answer decodes a field when
the field is read, so each answer is measured with no field read, some, and all. Prints JSON:
microseconds, the best of the rounds, and the ratio to the standard library's `json.loads`.

    python benchmarks/read_answer.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from figures import significant

from edgegap_async import Deployment
from edgegap_async.api import codec
from edgegap_async.models import DeploymentPage

REFERENCE = Path(__file__).parents[1] / "tests/reference/operations.json"
ROWS = 100


def shown(path: str) -> dict[str, list[dict[str, object]]]:
    operations = json.loads(REFERENCE.read_text())["operations"]
    answer: dict[str, list[dict[str, object]]] = next(
        operation["answer"]
        for operation in operations
        if (operation["method"], operation["path"]) == ("GET", path)
    )
    return answer


def each_field(answer: attrs.AttrsInstance) -> list[object]:
    return [getattr(answer, field.name) for field in attrs.fields(type(answer))]


def best_of(rounds: int, read: Callable[[], object], times: int) -> float:
    def once() -> float:
        began = time.process_time()
        for _ in range(times):
            read()
        return (time.process_time() - began) / times * 1e6

    return min(once() for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    status = json.dumps(shown("/v1/status/{request_id}")).encode()
    listed = shown("/v1/deployments")
    rows = [{**listed["data"][0], "request_id": f"{number:012x}"} for number in range(ROWS)]
    page = json.dumps({**listed, "data": rows}).encode()

    def whole() -> Deployment:
        return codec.read_answer(Deployment, status)

    def status_and_ports() -> object:
        deployment = whole()
        return deployment.current_status, deployment.ports

    def rows_of_a_list() -> object:
        data = codec.read_answer(DeploymentPage, page).data
        return [(row.request_id, row.ready, row.status) for row in data]

    cases: dict[str, tuple[bytes, Callable[[], object]]] = {
        "status": (status, whole),
        "status, with status and ports read": (status, status_and_ports),
        "status, with every field read": (status, lambda: each_field(whole())),
        "page": (page, lambda: codec.read_answer(DeploymentPage, page)),
        "page, with id, ready and status read": (page, rows_of_a_list),
        "page, with every field read": (
            page,
            lambda: [each_field(row) for row in codec.read_answer(DeploymentPage, page).data],
        ),
    }
    readers: dict[str, Callable[[bytes], Any]] = {"json": json.loads}
    if codec.loads is not json.loads:
        readers = {"orjson": codec.loads, **readers}
    result: dict[str, object] = {"benchmark": "read_answer", "rounds": rounds}
    for name, loads in readers.items():
        codec.loads = loads
        for case, (body, read) in cases.items():
            times = max(1, 200_000 // len(body))
            took = best_of(rounds, read, times)
            plain = best_of(rounds, functools.partial(json.loads, body), times)
            result[f"{case} ({name})"] = {
                "us": significant(took),
                "ratio": significant(took / plain),
            }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
