-- Concurrency, twin of concurrency.py, which explains the terms.
--
-- A state is a sorted set: holders, scored with the millisecond in which their leases expire. Keys of this kind are
-- read by calls of their own, since MGET reads strings only.

local NEVER, MAX_RETRY_MS, DAY = 9007199254740991, 1000, 86400000
local min, max = math.min, math.max

local function text(number)
  return string.format('%.0f', number)
end

-- The limit of a list of numbers as `codec.py` sends it.
local function decode_limit(numbers, kind)
  return { kind = kind, shadow = numbers[2] == 1, caller_capacity = numbers[4], advertised_limit = min(numbers[3], numbers[4]), lease_ms = numbers[5] }
end

-- A string that something else has written under this key is deleted.
local function load(key, value)
  if value then redis.call('DEL', key) end
  return { key = key, added = {} }
end

local function evaluate(s, _, now)
  if s.held then return end
  local held = redis.pcall('ZCOUNT', s.key, '(' .. text(now), '+inf')
  if type(held) ~= 'number' then
    -- A value of another type, which MGET does not show, is deleted; any other error is raised.
    if not string.find(held.err, 'WRONGTYPE', 1, true) then error(held.err) end
    redis.call('DEL', s.key)
    held = 0
  end
  s.held = held
end

local function available(s, lim)
  return lim.caller_capacity - s.held
end

local function charge(s, lim, now, _, holder)
  s.held, s.dirty = s.held + 1, lim
  s.added[#s.added + 1] = text(now + lim.lease_ms)
  s.added[#s.added + 1] = text(holder)
end

-- Write the permits that were given in this batch.
local function flush(s)
  if #s.added > 0 then
    redis.call('ZADD', s.key, unpack(s.added))
    s.added = {}
  end
end

-- When the lease of `holder` expires, if it has a permit.
local function lease_of(s, holder)
  flush(s)
  local score = redis.call('ZSCORE', s.key, text(holder))
  return score and tonumber(score)
end

local function release(s, _, now, _, holder)
  local ends = lease_of(s, holder)
  if ends then
    redis.call('ZREM', s.key, text(holder))
    if ends > now then s.held = s.held - 1 end
  end
end

local function adjust(s, lim, now, delta, _, holder)
  if delta > 0 then charge(s, lim, now, 1, holder) else release(s, lim, now, 1, holder) end
end

local function renew(s, lim, now, holder)
  local ends = lease_of(s, holder)
  if ends and ends > now then
    redis.call('ZADD', s.key, text(now + lim.lease_ms), text(holder))
    s.dirty = lim
  end
end

-- Shorten leases that last longer than any lease may (a day): a wrong clock started them.
local function repair(s, lim, now)
  if available(s, lim) >= 1 then return end
  flush(s)
  local late = redis.call('ZRANGEBYSCORE', s.key, '(' .. text(now + DAY), '+inf')
  for i = 1, #late do
    redis.call('ZADD', s.key, text(now + lim.lease_ms), late[i])
    s.dirty = lim
  end
end

local function releasable(s)
  return s.held
end

local function usage(s)
  return s.held, 0, 0
end

local function status(s, lim, now)
  if available(s, lim) >= 1 then return lim.advertised_limit - s.held, 0, 0 end
  if lim.caller_capacity < 1 then return 0, 0, NEVER end
  flush(s)
  local first = redis.call('ZRANGEBYSCORE', s.key, '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  local wait = min(MAX_RETRY_MS, (tonumber(first[2]) or now + lim.lease_ms) - now)
  return 0, wait, wait
end

-- Expired leases are removed by the next write. The set lives a day longer than the lease: the clock may step back, and
-- an earlier limit may have had longer leases.
local function save(key, s, now, ttl_floor)
  local lim = s.dirty
  flush(s)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now))
  redis.call('PEXPIRE', key, text(max(lim.lease_ms + DAY, ttl_floor)))
end

return {
  decode_limit = decode_limit, load = load, evaluate = evaluate, available = available, charge = charge, status = status, save = save,
  make_slow_path = function()
    return {
      adjust = adjust, release = release, renew = renew, releasable = releasable, usage = usage, repair = repair,
    }
  end,
}
