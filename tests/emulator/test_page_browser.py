"""The page in a browser: what a person sees and does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from bare_api import BareApi
from browser import a_context, needs_chromium, opened
from playwright.async_api import Page, expect

from edgegap_async.emulator import Emulator, Timings, sample_application

pytestmark = [needs_chromium, pytest.mark.timeout(180)]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator([sample_application()], timings=Timings.fast(), limits=False) as emulator:
        yield emulator


@pytest.fixture
async def page(emulator: Emulator) -> AsyncIterator[Page]:
    async with a_context() as context:
        yield await opened(context, emulator)


@pytest.fixture
async def api(emulator: Emulator) -> AsyncIterator[BareApi]:
    async with aiohttp.ClientSession(emulator.url) as session:
        yield BareApi(emulator, session)


async def test_a_deployment_appears_and_turns_ready_without_a_reload(
    page: Page, api: BareApi
) -> None:
    await page.evaluate("window.isTheSame = true")
    request_id = await api.deploy(tags=["eu"])
    line = page.locator(f"tr[data-id='{request_id}']")
    await expect(line).to_contain_text("READY")

    await expect(line).to_contain_text("Paris")
    await expect(line.locator(".tag")).to_have_text("eu")
    await expect(page.get_by_role("button", name="Paris: 1 ready")).to_be_visible()
    assert await page.evaluate("window.isTheSame")
