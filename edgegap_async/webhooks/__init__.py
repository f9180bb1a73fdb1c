"""Receives webhooks over aiohttp or ASGI and triggers status requests."""
