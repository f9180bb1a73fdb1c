"""Debian's Chromium without a window, for the emulator's page."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, async_playwright

from edgegap_async.emulator import Emulator

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE = files("axe_playwright_python").joinpath("axe.min.js")
TIMEOUT = 30_000.0  # milliseconds for a condition; a loaded machine is slow

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)


class PageProblem(AssertionError):
    """The page has raised an error, or broken its own policy."""


@asynccontextmanager
async def a_context(**options: Any) -> AsyncIterator[BrowserContext]:
    """A browser with a new profile. It ends, and its pages must have had no error.

    Raises:
        PageProblem: a page has had one.
    """
    problems: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS])
        context = await browser.new_context(**options)
        context.set_default_timeout(TIMEOUT)
        context.on("weberror", lambda error: problems.append(str(error.error)))
        context.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if "Content Security Policy" in message.text or "TrustedHTML" in message.text
                else None
            ),
        )
        try:
            yield context
        finally:
            await browser.close()
    if problems:
        raise PageProblem("\n".join(problems))


async def opened(context: BrowserContext, emulator: Emulator) -> Page:
    """Opens the page of an emulator by a login link, and waits until it is live."""
    page = await context.new_page()
    await page.goto(emulator.new_login_link())
    await page.wait_for_url(f"{emulator.url}/")
    await page.wait_for_selector("#connection[data-state=live]")
    return page


async def violations(page: Page) -> list[str]:
    """What axe finds in a page: one line for each violation."""
    await page.evaluate(AXE.read_text("utf-8"))
    found = await page.evaluate(
        "axe.run({resultTypes: ['violations']}).then(all => all.violations)"
    )
    return [
        f"{one['id']} ({one['impact']}): {node['target']} {node['html'][:120]}"
        for one in found
        for node in one["nodes"]
    ]
