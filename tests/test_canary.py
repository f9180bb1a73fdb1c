"""Secrets are in nothing that a program writes, whatever happens to it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

TOKEN = "canary-token-7b1e55"
HIDDEN = "canary-value-90af3c"


async def test_no_fault_shows_the_token_or_a_hidden_variable() -> None:
    program = Path(__file__).with_name("program_with_secrets.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", str(program)),
        env={**os.environ, "EDGEGAP_API_TOKEN": TOKEN, "HIDDEN": HIDDEN},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = (stream.decode("utf-8", "replace") for stream in await process.communicate())

    assert process.returncode == 0, errors[-3000:]
    assert {"NotSent", "NoAnswer", "MaybeCreated", "RateLimited", "Unprocessable"} <= set(
        re.findall(r"\w+", output)
    )
    for name in ("ClientClosed", "TimeoutError", "UnreadableAnswer", "ServerError"):
        assert f"\n{name} " in output
    assert "    client = EdgegapClient(" in output  # local variables were shown
    assert re.search("variables that hold the secret: [1-9]", output)
    assert "DEBUG:asyncio" in errors
    assert "looking for what it made by its tag" in errors
    for secret in (TOKEN, HIDDEN, "canary"):
        assert secret not in output
        assert secret not in errors
