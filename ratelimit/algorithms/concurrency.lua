-- Concurrency, twin of concurrency.py; read the words there.
--
-- A state is a sorted set: holders, scored with the millisecond in which their leases end. Keys of this kind are read
-- by calls of their own, since MGET sees strings only.

local NEVER, SOON, DAY = 9007199254740991, 1000, 86400000
local min, max = math.min, math.max

local function text(number)
  return string.format('%.0f', number)
end

-- Terms as they come off the wire.
local function terms(t, kind)
  return { kind = kind, shadow = t[2] == 1, cap = t[4], usable = min(t[3], t[4]), lease = t[5] }
end

-- What something else has written under our key, as far as MGET sees it, means nothing.
local function open(key, value)
  if value then redis.call('DEL', key) end
  return { key = key, added = {} }
end

local function look(s, _, now)
  if s.held then return end
  local held = redis.pcall('ZCOUNT', s.key, '(' .. text(now), '+inf')
  if type(held) ~= 'number' then
    -- Something else is there, which MGET does not see; any other error is one.
    if not string.find(held.err, 'WRONGTYPE', 1, true) then error(held.err) end
    redis.call('DEL', s.key)
    held = 0
  end
  s.held = held
end

local function room(s, t)
  return t.cap - s.held
end

local function charge(s, t, now, _, holder)
  s.held, s.dirty = s.held + 1, t
  s.added[#s.added + 1] = text(now + t.lease)
  s.added[#s.added + 1] = text(holder)
end

-- When the lease of `holder` ends, if it has one; what was added in this batch is written first.
local function flush(s)
  if #s.added > 0 then
    redis.call('ZADD', s.key, unpack(s.added))
    s.added = {}
  end
end

local function lease_of(s, holder)
  flush(s)
  local score = redis.call('ZSCORE', s.key, text(holder))
  return score and tonumber(score)
end

local function give_back(s, _, now, _, holder)
  local ends = lease_of(s, holder)
  if ends then
    redis.call('ZREM', s.key, text(holder))
    if ends > now then s.held = s.held - 1 end
  end
end

local function adjust(s, t, now, delta, _, holder)
  if delta > 0 then charge(s, t, now, 1, holder) else give_back(s, t, now, 1, holder) end
end

local function renew(s, t, now, holder)
  local ends = lease_of(s, holder)
  if ends and ends > now then
    redis.call('ZADD', s.key, text(now + t.lease), text(holder))
    s.dirty = t
  end
end

local function taken(s)
  return s.held
end

local function usage(s)
  return s.held, 0, 0
end

local function answer(s, t, now)
  if room(s, t) >= 1 then return t.usable - s.held, 0, 0 end
  if t.cap < 1 then return 0, 0, NEVER end
  flush(s)
  local first = redis.call('ZRANGEBYSCORE', s.key, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local wait = min(SOON, tonumber(first[2]) - now)
  return 0, wait, wait
end

-- Ended leases go with the next write. The set lives a day longer than the lease, so that a clock that steps back, or
-- a lease that was longer before, finds what it left.
local function save(key, s, now, ttl_floor)
  local t = s.dirty
  flush(s)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
  redis.call('PEXPIRE', key, text(max(t.lease + DAY, ttl_floor)))
end

return {
  terms = terms, open = open, look = look, room = room, charge = charge, answer = answer, save = save,
  make_rare = function()
    return { adjust = adjust, give_back = give_back, renew = renew, taken = taken, usage = usage }
  end,
}
