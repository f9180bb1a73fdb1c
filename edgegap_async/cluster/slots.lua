-- Reserves slots on the timeline of one operation: the times at which calls may go.
--
-- Times are seconds of Redis's clock. What a program sends and receives is relative to now, so that
-- the clocks of the programs do not matter. `slots.py` puts the constants (names in capitals) in
-- front of this text, with their units and reasons.
--
-- KEYS[1]  hash: `id` of the timelines, a new one after an outage; `seen`, when a program called
--          last; `opens`, when the timelines open; `of NAME`, the timeline of an operation, packed
-- KEYS[2]  sorted set: the programs, by the time of their last call
-- ARGV     1 program            its random id
--          2 known              id of the timelines that the program knows; empty for none
--          3 busy               seconds from now until the last call that the program sends without
--                               these timelines; far below 0 for none
--          4 name               of the operation; empty for a heartbeat
--          5 limit              calls a second, as the programs have learned it
--          6 burst              calls that may go at once after an idle period, 1 or more
--          7 wanted             slots
--          8 lead               seconds that the answer travels; no slot is earlier
--          9 horizon            seconds; no slot is later
--         10 rate_limited_for   seconds for which the API wants no calls; below 0 without a 429
--         11 refused            slot of the refused call, in seconds of Redis's clock; 0 if unknown
--         12 version            of the learned limit that the program knows
--         13 learned            calls a second that it has learned since; 0 for no change
--         14 learned_at         seconds from now until the change, 0 or below
--         15 hold               seconds that the limit is kept from then
--         16 unused...          slots that the program gives back, in seconds of Redis's clock
--
-- Returns {seconds, microseconds, programs, opens, id}, and for an operation also
-- closed, factor, next, {slot, ...}, {version, learned, learned_at, hold}; without a learned limit
-- the last table holds its version alone. After a 429 follows what is learned from:
-- {slot of the newest seconds, ...}, {refused slot, ...}, the factor, and the begin and the end of
-- the pause before this 429. Redis cuts fractions off, so times and factors are millionths; times
-- are relative to seconds.microseconds.

-- Redis does not say which command the user lacks.
local function call(command, ...)
  local answer = redis.pcall(command, ...)
  if type(answer) == 'table' and answer.err then
    local lacks = string.find(answer.err, "can't run this command") or string.find(answer.err, 'NOPERM')
    error((lacks and "lacks '" .. string.lower(command) .. "': " or '') .. answer.err)
  end
  return answer
end

local timelines, programs = KEYS[1], KEYS[2]
local program, known, busy, name = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local time = call('TIME')
local now = time[1] + time[2] / 1e6
local function text(seconds) return string.format('%.6f', seconds) end
local function millionths(number) return math.floor(number * 1e6) end

call('ZADD', programs, text(now), program)
call('ZREMRANGEBYSCORE', programs, '-inf', text(now - PROGRAM_TIMEOUT))

local marks = call('HMGET', timelines, 'seen', 'opens', 'id')
local seen, opens, id = tonumber(marks[1] or nil), tonumber(marks[2] or nil), marks[3]
if seen and seen > now then  -- the clock was set back, or is the clock of another machine
  call('DEL', timelines)
  seen = nil
end
-- Without Redis for so long, programs have sent on their own.
if not seen or not opens or not id or now - seen > IDLE_TIME then
  opens, id = now + OPENING_DELAY, text(now)
end
if known ~= id then  -- what the program has sent on its own, or by slots that were lost
  opens = math.max(opens, now + busy + LOG_WINDOW)
end
call('HSET', timelines, 'seen', text(now), 'opens', text(opens), 'id', id)
call('EXPIRE', timelines, KEY_LIFETIME)
call('EXPIRE', programs, KEY_LIFETIME)
local reply = {tonumber(time[1]), tonumber(time[2]), call('ZCARD', programs),
               millionths(opens - now), id}
if name == '' then return reply end

local limit, burst, wanted = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local lead, horizon, rate_limited_for = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local packed = call('HGET', timelines, 'of ' .. name)
-- log: the newest slots, as many as the limit and those of the last seconds; refused: the slots of
-- the calls among them that were refused; next: when the pace allows the next slot; closed: until
-- when no call goes, and paused: since when; factor: of the rate at the last 429; limited, cut:
-- times of the last 429 and of the last 429 that lowered the rate; version, learned: the learned
-- limit, and how often it changed.
local line = packed and cmsgpack.unpack(packed)
local is_known = line and line.log and line.next and line.closed and line.factor
                 and line.limited and line.cut and line.refused and line.paused and line.version
if not is_known then
  -- A timeline that another version of this script wrote: its slots may still be in use.
  local closed = packed and now + LOG_WINDOW or 0
  line = {log = {}, refused = {}, next = 0, closed = closed, paused = 0, factor = 1, limited = 0,
          cut = 0, version = 0}
end

if tonumber(ARGV[13]) > 0 and tonumber(ARGV[12]) == line.version then
  line.version = line.version + 1
  line.learned = {tonumber(ARGV[13]), now + tonumber(ARGV[14]), tonumber(ARGV[15])}
  line.factor, line.cut = 1, now  -- the limit is lower or higher, and the rate is all of it
end

local factor = math.min(1, line.factor + RECOVERY_PER_SECOND * (now - line.limited))
local lesson
if rate_limited_for >= 0 then
  local log, refused = {}, {}
  for place, slot in ipairs(line.log) do log[place] = millionths(slot - now) end
  for place, slot in ipairs(line.refused) do refused[place] = millionths(slot - now) end
  lesson = {log, refused, millionths(factor), millionths(line.paused - now),
            millionths(line.closed - now)}
  line.refused[#line.refused + 1] = tonumber(ARGV[11])
  if now >= line.closed then line.paused = now end
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
for index = 16, #ARGV do
  local unused = tonumber(ARGV[index])
  for place = #line.log, 1, -1 do
    if math.abs(line.log[place] - unused) < CLOCK_PRECISION then
      table.remove(line.log, place)
      line.next = line.next - gap
      break
    end
  end
end
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
end
while #line.log > size and line.log[1] < now - LOG_MEMORY do table.remove(line.log, 1) end
while line.refused[1] and line.refused[1] < now - LOG_MEMORY do table.remove(line.refused, 1) end
call('HSET', timelines, 'of ' .. name, cmsgpack.pack(line))
reply[6], reply[7] = millionths(line.closed - now), millionths(factor)
reply[8], reply[9], reply[10] = millionths(earliest() - now), slots, {line.version}
if line.learned then
  reply[10][2] = millionths(line.learned[1])
  reply[10][3] = millionths(line.learned[2] - now)
  reply[10][4] = millionths(line.learned[3])
end
for place, value in ipairs(lesson or {}) do reply[10 + place] = value end
return reply
