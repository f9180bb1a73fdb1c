"""Every Python block of the documents for users runs against the emulator."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from program_runner import ROOT, ServingProgram, run_program, running_deployments

from edgegap_async import EdgegapClient
from edgegap_async.emulator import Emulator

DOCUMENTS = (
    "README.md",
    "examples/README.md",
    "examples/DEPLOYING.md",
    "edgegap_async/emulator/README.md",
)


class Block(NamedTuple):
    """A Python block of a document."""

    document: str
    line: int
    code: str

    @property
    def is_program(self) -> bool:
        """Whether the block runs by itself; other blocks use names that the test provides."""
        return re.search(r"^(\w+\.)?run\(", self.code, re.MULTILINE) is not None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks() -> list[Block]:
    """Returns all Python blocks of the documents that exist."""
    return [
        Block(document, text.count("\n", 0, match.start()) + 1, match[1])
        for document in DOCUMENTS
        if (ROOT / document).is_file()
        for text in [(ROOT / document).read_text("utf-8")]
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


BLOCKS = blocks()


async def test_the_first_example_of_the_readme_deploys_and_stops_a_server(
    emulator: Emulator,
) -> None:
    printed = await run_program(emulator, "-c", BLOCKS[0].code)

    assert BLOCKS[0].document == "README.md"
    assert re.fullmatch(r"play at 127\.0\.0\.1:\d+\n", printed)
    assert [str(deployment.status) for deployment in emulator.cloud.deployments.values()] in (
        ["TERMINATING"],
        ["TERMINATED"],
    )


async def test_sigterm_stops_the_server_of_the_first_example(emulator: Emulator) -> None:
    told = 'print(f"play at {address}")'
    assert told in BLOCKS[0].code
    serving = BLOCKS[0].code.replace(
        told, 'print(f"listening on {address}"); import asyncio; await asyncio.Event().wait()'
    )

    async with ServingProgram(emulator, "-c", serving, ended_by=signal.SIGTERM):
        assert [str(one.status) for one in emulator.cloud.deployments.values()] == ["READY"]

    assert await running_deployments(emulator) == []


@pytest.mark.parametrize("block", BLOCKS[1:], ids=str)
async def test_every_other_block_runs(
    block: Block, emulator: Emulator, client: EdgegapClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block.is_program:
        await run_program(emulator, "-c", block.code)
        return
    monkeypatch.setenv("EDGEGAP_API_TOKEN", emulator.token)
    monkeypatch.setenv("EDGEGAP_BASE_URL", emulator.url)
    names: dict[str, Any] = {
        "__file__": str(ROOT / block.document),
        "asyncio": asyncio,
        "signal": signal,
        "client": client,
        "EdgegapClient": EdgegapClient,
        "emulator": emulator,
    }
    code = block.code.replace('"0.0.0.0", port=8080', '"127.0.0.1", port=0')
    # Padded, so that a traceback names the line in the document.
    source = "\n" * block.line + code
    compiled = compile(source, block.document, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(compiled, names)
    if inspect.isawaitable(running):
        await running


DOCUMENTS_WITH_LINKS = sorted(
    {path for pattern in ("*.md", "*/*.md", "*/*/*.md") for path in ROOT.glob(pattern)}
    - set(ROOT.glob(".*_cache/*.md"))
)


@pytest.mark.parametrize("document", DOCUMENTS_WITH_LINKS, ids=lambda path: str(path.name))
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text("utf-8"))

    assert [one for one in targets if not (document.parent / one).exists()] == []


def test_every_document_for_users_exists() -> None:
    assert [one for one in DOCUMENTS if not (ROOT / one).is_file()] == []
