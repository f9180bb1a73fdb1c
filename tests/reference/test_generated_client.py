"""A client that openapi-generator makes from the newer official description.

It has one waiver: the description gives the times of metrics the format `date`, and as an example a
time of day, which no `date` can have. The client is made from a description without that format.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from official_description import DESCRIPTION, without_wrong_formats
from program_runner import run_program

from edgegap_async.emulator import (
    Emulator,
    Fleet,
    Image,
    PrivateHost,
    Timings,
    sample_application,
)

PROGRAM = Path(__file__).parents[1] / "support/programs/program_with_generated_client.py"
COMMAND = "openapi-generator-cli"

EXPECTED = {  # by call, the class of its decoded answer; the program decodes others too
    "application-create": "ApplicationCreate200Response",
    "app-version-create": "AppVersionCreate200Response",
    "deploy": "V2V2DeploymentCreate202Response",
    "deployment-get-young": "V1DeploymentStatus",
    "deployment-get-ready": "V1DeploymentStatus",
    "deployment-list-young": "DeploymentList200Response",
    "deployment-list-ready": "DeploymentList200Response",
    "deployment-metrics-measured": "DeploymentMetricsGet200Response",
    "location-list": "LocationList200Response",
    "private-fleet-hosts": "V2PrivateFleetHostsList200Response",
    "deployment-delete": "DeploymentDelete200Response",
    "deployment-get-terminated": "V1DeploymentStatus",
    "deployment-get-unknown": "Error",
}


def _generator() -> str | None:
    beside = Path(sys.executable).with_name(COMMAND)  # where pip puts it
    return str(beside) if beside.exists() else shutil.which(COMMAND)


def _missing() -> str:
    """Returns what is missing, empty if nothing is."""
    if not DESCRIPTION.exists():
        return "the official description is not at hand"
    if shutil.which("java") is None:
        return "needs Java: apt install default-jre-headless"
    if _generator() is None:
        return f"needs {COMMAND}: pip install {COMMAND}"
    modules = {"dateutil": "python-dateutil", "pydantic": "pydantic", "urllib3": "urllib3"}
    missing = [name for key, name in modules.items() if importlib.util.find_spec(key) is None]
    return f"the generated client needs: pip install {' '.join(missing)}" if missing else ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing())


async def _generate(folder: Path) -> None:
    description = folder / "description.yaml"
    description.write_text(yaml.safe_dump(without_wrong_formats("date")), "utf-8")
    process = await asyncio.create_subprocess_exec(
        str(_generator()),
        "generate",
        *("--input-spec", str(description), "--generator-name", "python"),
        *("--output", str(folder), "--package-name", "edgegap_generated"),
        *("--global-property", "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-2000:]


@pytest.mark.timeout(300)
async def test_a_generated_client_decodes_every_answer_from_create_to_stop(tmp_path: Path) -> None:
    await _generate(tmp_path)
    emulator = Emulator(
        [sample_application()],
        images=[Image(image="registry.example.com/studio/arena", argv=sample_application().argv)],
        fleets=[Fleet(name="alpha", hosts=(PrivateHost(host_id="alpha-1"),))],
        timings=Timings.fast(),
        metrics_interval=0.1,
        host_shape="centroid",
    )
    async with emulator:
        output = await run_program(emulator, str(PROGRAM), PYTHONPATH=str(tmp_path))
        assert emulator.live() == ()
    decoded = dict(line.split() for line in output.splitlines())
    assert decoded.items() >= EXPECTED.items()
