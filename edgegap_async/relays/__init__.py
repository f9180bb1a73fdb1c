"""Relay sessions that the client creates, waits for and deletes.

What the API says about relays as data is in `api`, and its bare calls are in `http.resources`.
"""
