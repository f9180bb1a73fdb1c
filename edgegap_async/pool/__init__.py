"""Keeps game servers READY in advance and allocates them without delay: `ServerPool`.

What a pool decides belongs here: how many servers to deploy and when, and which to check, replace
or recover. The deploys themselves are one batch (`batch`), and the API calls are the client's.
"""
