"""Edgegap's HTTP API as data: models, requests, operations, JSON.

No I/O, no event loop and no clock belong here.
"""
