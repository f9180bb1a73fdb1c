"""Receives Edgegap's webhooks; each one triggers a status request.

`receiver` checks a webhook and triggers the poller, `servers` adapts it to aiohttp and ASGI. No
status is taken from a webhook: `polling` asks the API. `cluster` forwards to other programs.
"""
