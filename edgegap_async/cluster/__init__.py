"""Rate limits and webhooks that several programs share through Redis (or Valkey).

Everything that uses Redis belongs here, and only here. The rate limits of one program are in
`http.rate_limits`, the reception of webhooks is in `webhooks`; neither knows of Redis.

**Problem.** The documented rate limits are the organization's: eight replicas of a matchmaker have
40 deploys a second between them.

**Rule.** Each operation has one timeline in Redis. A script (`slots.lua`) reserves *slots* on it:
times, by Redis's clock, at which one call may go. Slots follow each other at 95 % of the limit,
after a burst of ten for an idle account, and no 1.05 s hold more slots than the limit. The margins
are for calls that start late or travel slowly: a slot is valid for 30 ms, and lost after that. A
program takes a *lease* of up to five slots while a call waits, one lease at a time. Many programs
take smaller leases, so that all leases together reach about one second ahead. The program reads no
wall clock: it measures how far Redis's clock is ahead of the event loop's.

**Without Redis.** Redis is lost if it does not answer within 0.3 s, or answers with an error; one
log line says so. Each program then sends at its share: the limit divided by the number of programs
last seen, evenly spaced and without a burst. It asks Redis again every 0.5 s. No call fails.

**The limit holds at each switch** (`connection` says how): no program sends for up to 2.3 s after
the loss, until all slots have passed, nor for 1 to 2 s after the return, until all programs have
reconnected. Two cases exceed the limit, and the API's 429 slows all programs down then. A program
that starts without Redis sends one call a second more. If one program alone cannot reach
Redis, its share comes on top.
"""

from .cluster import Cluster

__all__ = ["Cluster"]
