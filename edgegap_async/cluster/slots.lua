-- Reserves slots on the timeline of one operation: the times at which calls may go.
--
-- Times are seconds of Redis's clock. What a program sends and receives is relative to now, so that
-- the clocks of the programs do not matter. `slots.py` puts the constants (names in capitals) in
-- front of this text, with their units and reasons.
--
-- KEYS[1]  hash: `seen`, when a program called last; `opens`, when the timelines open;
--          `of NAME`, the timeline of an operation, packed
-- KEYS[2]  sorted set: the programs, by the time of their last call
-- ARGV     1 program            its random id
--          2 idle_time          seconds without a call of any program, after which the timelines are
--                               new; after an outage at most its length
--          3 name               of the operation; empty for a heartbeat
--          4 limit              calls a second
--          5 burst              calls that may go at once after an idle period, 1 or more
--          6 wanted             slots
--          7 lead               seconds that the answer travels; no slot is earlier
--          8 horizon            seconds; no slot is later
--          9 rate_limited_for   seconds for which the API wants no calls; below 0 without a 429
--
-- Returns {seconds, microseconds, programs, opens}, and for an operation also
-- closed, factor, next, {slot, ...}. Redis cuts fractions off, so all but the first three numbers
-- are millionths; times are relative to seconds.microseconds.

local timelines, programs = KEYS[1], KEYS[2]
local program, idle_time, name = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local function text(seconds) return string.format('%.6f', seconds) end
local function millionths(number) return math.floor(number * 1e6) end

redis.call('ZADD', programs, text(now), program)
redis.call('ZREMRANGEBYSCORE', programs, '-inf', text(now - PROGRAM_TIMEOUT))

local marks = redis.call('HMGET', timelines, 'seen', 'opens')
local seen, opens = tonumber(marks[1] or nil), tonumber(marks[2] or nil)
if seen and seen > now then  -- the clock was set back, or is the clock of another machine
  redis.call('DEL', timelines)
  seen = nil
end
-- If no program reached Redis while this one could not, all have sent on their own since.
if not seen or not opens or now - seen > idle_time then
  opens = now + OPENING_DELAY
end
redis.call('HSET', timelines, 'seen', text(now), 'opens', text(opens))
redis.call('EXPIRE', timelines, KEY_LIFETIME)
redis.call('EXPIRE', programs, KEY_LIFETIME)
local reply = {tonumber(time[1]), tonumber(time[2]), redis.call('ZCARD', programs),
               millionths(opens - now)}
if name == '' then return reply end

local limit, burst, wanted = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local lead, horizon, rate_limited_for = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local packed = redis.call('HGET', timelines, 'of ' .. name)
-- log: the newest slots, as many as the limit; next: when the pace allows the next slot; closed:
-- until when no call goes; factor: of the rate at the last 429; limited, cut: times of the last 429
-- and of the last 429 that lowered the rate.
local line = packed and cmsgpack.unpack(packed)
local is_known = line and line.log and line.next and line.closed and line.factor
                 and line.limited and line.cut
if not is_known then
  -- A timeline that another version of this script wrote: its slots may still be in use.
  local closed = packed and now + LOG_WINDOW or 0
  line = {log = {}, next = 0, closed = closed, factor = 1, limited = 0, cut = 0}
end

local factor = math.min(1, line.factor + RECOVERY_PER_SECOND * (now - line.limited))
if rate_limited_for >= 0 then
  if now >= line.cut + MIN_CUT_INTERVAL then
    line.cut = now
    factor = math.max(MIN_RATE_FACTOR, factor * CUT_FACTOR)
  end
  line.factor, line.limited = factor, now
  line.closed = math.max(line.closed, now + rate_limited_for)
end

local gap = 1 / (PACE_FRACTION * limit * factor)  -- seconds between two slots
-- A limit below 1 a second is one call in a longer window.
local window = LOG_WINDOW * math.max(1, 1 / limit) / factor
local size = math.max(1, math.floor(limit))
-- A slot may be earlier than the pace allows by the part of the burst that is left.
local early = (burst - 1) * gap
line.next = math.max(line.next, opens + early)  -- a new timeline has no burst
if rate_limited_for >= 0 then  -- no burst follows a 429
  line.next = math.max(line.next, line.closed + early)
end
local function earliest()
  local log = line.log
  return math.max(now + lead, opens, line.closed, line.next - early, log[#log] or 0,
                  (log[#log - size + 1] or -window) + window)
end

local slots = {}
while #slots < wanted and opens <= now and earliest() <= now + horizon do
  local slot = earliest()
  line.next = math.max(line.next, slot) + gap
  line.log[#line.log + 1] = slot
  slots[#slots + 1] = millionths(slot - now)
  if #line.log > size then table.remove(line.log, 1) end
end
redis.call('HSET', timelines, 'of ' .. name, cmsgpack.pack(line))
reply[5], reply[6] = millionths(line.closed - now), millionths(factor)
reply[7], reply[8] = millionths(earliest() - now), slots
return reply
