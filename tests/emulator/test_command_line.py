"""The command `python -m edgegap_async.emulator`."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import Any

import aiohttp
import pytest
from bare_api import DEPLOY_BODY

from edgegap_async.emulator.__main__ import main


def _shell(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgegap_async.emulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_row_59_in_a_shell_a_signal_ends_the_emulator_and_its_servers(
    how: signal.Signals,
) -> None:
    with _shell("--fast", "--no-limits", "--token", "secret") as shell:
        assert shell.stdout is not None
        answers, url, token = (shell.stdout.readline().strip() for _ in range(3))
        base = url.removeprefix("export EDGEGAP_BASE_URL=")
        headers = {"Authorization": "token secret"}
        async with aiohttp.ClientSession(base, headers=headers) as session:
            async with session.post("/v2/deployments", json=DEPLOY_BODY) as answer:
                request_id = (await answer.json())["request_id"]
            status: dict[str, Any] = {}
            while not status.get("running"):
                async with session.get(f"/v1/status/{request_id}") as answer:
                    status = await answer.json()
        port = status["ports"]["game"]["external"]
        shell.send_signal(how)
        _, errors = shell.communicate(timeout=20)

    assert answers == f"The emulator answers at {base}, and deploys: arena v1"
    assert token == "export EDGEGAP_API_TOKEN=secret"
    assert (shell.returncode, errors) == (0, "")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--apps", "/does/not/exist.toml"], "No such file"),
        (["--host", "0.0.0.0", "--verbose"], "set a token of your own"),
        (["--webhook-allow", "x"], "webhook_allow"),
    ],
)
def test_a_wrong_argument_prints_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    assert main(arguments) == 1

    output, errors = capsys.readouterr()
    assert (output, errors.count("\n")) == ("", 1)
    assert complaint in errors
