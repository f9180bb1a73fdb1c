"""The timeline of an operation: the script that hands out its slots, and what it answers."""

from __future__ import annotations

import math
from typing import Final

import attrs

__all__ = ["BURST", "PACE", "SCRIPT", "WINDOW", "ClockOffset", "SlotReply"]

PACE: Final = 0.95
WINDOW: Final = 1.05  # seconds
BURST: Final = 10

_SILENCE: Final = 3.0  # seconds without any program, and the timeline is a new one
_LATE: Final = 1.0  # seconds until it opens: all look for Redis and are answered meanwhile
_GONE: Final = 6.0  # seconds after which a program does not count any more
_KEPT: Final = 3600  # seconds that Redis keeps it all when nobody comes

_DRIFT: Final = 2e-4  # seconds that two clocks may part in one

# KEYS: the timelines, a hash; the programs, a sorted set by when they were last seen.
# What the programs tell of seconds is relative, so that Redis's clock is the only one.
SCRIPT: Final = (
    f"""
local PACE, WINDOW, BURST = {PACE}, {WINDOW}, {BURST}
local SILENCE, LATE, GONE, KEPT = {_SILENCE}, {_LATE}, {_GONE}, {_KEPT}
"""
    """
local timelines, programs = KEYS[1], KEYS[2]
local program, away, name = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function micro(seconds) return math.floor(seconds * 1e6) end

redis.call('ZADD', programs, string.format('%.6f', now), program)
redis.call('ZREMRANGEBYSCORE', programs, '-inf', string.format('%.6f', now - GONE))

local marks = redis.call('HMGET', timelines, 'seen', 'opens')
local seen, opens = tonumber(marks[1] or nil), tonumber(marks[2] or nil)
if seen and seen > now then  -- the clock was set back, or is another machine's
  redis.call('DEL', timelines)
  seen = nil
end
if not seen or not opens or now - seen > math.min(SILENCE, away) then
  opens = now + LATE
end
redis.call('HSET', timelines,
           'seen', string.format('%.6f', now), 'opens', string.format('%.6f', opens))
redis.call('EXPIRE', timelines, KEPT)
redis.call('EXPIRE', programs, KEPT)
local told = {tonumber(time[1]), tonumber(time[2]), redis.call('ZCARD', programs),
              micro(opens - now)}
if name == '' then return told end

local wanted, limit = tonumber(ARGV[5]), tonumber(ARGV[4])
local lead, horizon, refused = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local packed = redis.call('HGET', timelines, 'of ' .. name)
local line = packed and cmsgpack.unpack(packed)
             or {sent = {}, next = 0, closed = 0, share = 1, refused = 0, slowed = 0}

local share = math.min(1, line.share + 0.001 * (now - line.refused))
if refused >= 0 then
  if now >= line.slowed + 1 then
    line.slowed = now
    share = math.max(0.8, share * 0.95)
  end
  line.share, line.refused = share, now
  line.closed = math.max(line.closed, now + refused)
end

local gap = 1 / (PACE * limit * share)
local window = WINDOW * math.max(1, 1 / limit) / share
local size = math.max(1, math.floor(limit))
local early = (math.max(1, math.min(BURST, limit / 4)) - 1) * gap  -- what is left of the burst
line.next = math.max(line.next, opens + early)
if refused >= 0 then  -- what was saved up is void
  line.next = math.max(line.next, line.closed + early)
end
local function earliest()
  local sent = line.sent
  return math.max(now + lead, opens, line.closed, line.next - early, sent[#sent] or 0,
                  (sent[#sent - size + 1] or -window) + window)
end

local slots = {}
while #slots < wanted and opens <= now and earliest() <= now + horizon do
  local slot = earliest()
  line.next = math.max(line.next, slot) + gap
  line.sent[#line.sent + 1] = slot
  slots[#slots + 1] = micro(slot - now)
  if #line.sent > size then table.remove(line.sent, 1) end
end
redis.call('HSET', timelines, 'of ' .. name, cmsgpack.pack(line))
told[5], told[6] = micro(line.closed - now), micro(share)
told[7], told[8] = micro(earliest() - now), slots
return told
"""
)


@attrs.frozen(kw_only=True)
class SlotReply:
    """What Redis said, in times of this loop."""

    programs: int
    opens_at: float
    closed_until: float = -math.inf
    share: float = 1.0
    next_at: float = -math.inf
    slots: tuple[float, ...] = ()


class ClockOffset:
    """How far Redis's clock is ahead of the loop's."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._error = math.inf
        self._at = -math.inf

    def hear(self, theirs: float, sent: float, received: float) -> None:
        """It was so late there at some time between these two."""
        ahead, error = theirs - (sent + received) / 2, (received - sent) / 2
        known_to = self._error + _DRIFT * (received - self._at)
        # An answer that came faster tells more; one that contradicts tells of another clock.
        if error <= known_to or abs(ahead - self._ahead) > error + known_to:
            self._ahead, self._error, self._at = ahead, error, received

    def here(self, theirs: float) -> float:
        """The loop's time when it is so late there."""
        return theirs - self._ahead
