"""Describes Edgegap's HTTP API as data: operations, requests, answers, and their JSON.

A new call, field, enum value or oddity of the JSON belongs here, and so do the checks of arguments.
Sending, retrying, waiting and every decision that needs a clock, a socket or an event loop do not.
"""
