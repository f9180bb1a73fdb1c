"""A Discord bot that starts a match by the command /match and ends it by /over.

pip install discord.py
DISCORD_TOKEN=… python examples/discord_bot.py
"""

import os
from contextlib import AsyncExitStack

import discord
from discord import app_commands

from edgegap_async import DeploymentHandle, EdgegapClient, EdgegapError, run


class Bot(discord.Client):
    """A bot with a client, which lives as long as the bot."""

    def __init__(self) -> None:
        super().__init__(intents=discord.Intents.default())
        self.edgegap = EdgegapClient(owner=os.environ.get("POD_NAME", "discord-bot"))
        self.matches: dict[int, DeploymentHandle | None] = {}  # by channel; None during the deploy
        self.end = AsyncExitStack()
        self.tree = app_commands.CommandTree(self)
        self.tree.add_command(match)
        self.tree.add_command(over)

    async def setup_hook(self) -> None:
        """Open the client, before the bot connects to Discord."""
        await self.end.enter_async_context(self.edgegap)
        self.end.push_async_callback(self.stop_matches)
        await self.edgegap.reap()  # what an earlier run has left, if it was killed

    async def stop_matches(self) -> None:
        """Stop the server of every match."""
        for channel in list(self.matches):
            try:
                await self.end_match(channel)
            except EdgegapError as error:  # the other servers are stopped all the same
                print(f"a server may go on running: {error}")

    async def end_match(self, channel: int) -> bool:
        """Stop the server of a channel, and say whether there is one."""
        server = self.matches.get(channel)
        if server is None:
            return False
        del self.matches[channel]
        await server.stop()
        return True

    async def close(self) -> None:
        """Stop every match, and leave Discord."""
        await self.end.aclose()
        await super().close()


@app_commands.command()
async def match(interaction: discord.Interaction[Bot]) -> None:
    """Start a match in this channel."""
    bot, channel = interaction.client, interaction.channel_id or 0
    if channel in bot.matches:  # its server would be forgotten
        await interaction.response.send_message("This channel has a match: /over ends it.")
        return
    bot.matches[channel] = None
    try:
        await interaction.response.defer()  # Discord waits 3 s for the first answer
        server = await bot.edgegap.deploy("arena", "v1", users=["75.28.35.192"])
        bot.matches[channel] = server  # from here on the bot stops it
        await server.wait_ready()
    except BaseException as error:
        await bot.end_match(channel)
        bot.matches.pop(channel, None)
        if not isinstance(error, EdgegapError):
            raise
        await interaction.followup.send(f"No server: {error}")
    else:
        await interaction.followup.send(f"Play at {server.endpoint('game')}")


@app_commands.command()
async def over(interaction: discord.Interaction[Bot]) -> None:
    """End the match of this channel."""
    is_over = await interaction.client.end_match(interaction.channel_id or 0)
    await interaction.response.send_message("The match is over." if is_over else "There is none.")


async def main() -> None:
    """Run the bot until SIGTERM."""
    async with Bot() as bot:
        await bot.start(os.environ["DISCORD_TOKEN"])


if __name__ == "__main__":
    run(main())
