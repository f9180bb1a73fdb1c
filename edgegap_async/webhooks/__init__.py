"""Receives Edgegap's webhooks; each one makes the poller's next request due at once.

`receiver` checks a webhook and triggers the poller, `servers` adapts it to aiohttp and ASGI. No
status is taken from a webhook: `polling` asks the API. `cluster` forwards to other programs.
"""
