"""Plays two matches, one asked for twice, with the bot of the example, and closes the bot."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from discord_bot import Bot, match, over


async def main() -> None:
    said: list[str] = []
    start: Any = match.callback
    end: Any = over.callback

    async def defer() -> None:
        pass

    async def say(text: str) -> None:
        said.append(text)

    async with Bot() as bot:
        await bot.setup_hook()
        for channel in (1, 1, 2):
            interaction: Any = SimpleNamespace(
                client=bot,
                channel_id=channel,
                response=SimpleNamespace(defer=defer, send_message=say),
                followup=SimpleNamespace(send=say),
            )
            await start(interaction)
        await end(interaction)
        print(len(bot.matches), "match left", *said, sep="; ", flush=True)


asyncio.run(main())
