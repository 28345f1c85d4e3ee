-- Decides a batch of requests: each is charged at all of its limits or at none.
--
-- KEYS      the keys of all charges, each once, and last the key under which the reply is kept (`lookup`: that one alone)
-- ARGV[1]   msgpack {now, ttl_floor, limits, requests, number}
--   now        ms since the epoch, or -1: the server's TIME, read once
--   ttl_floor  ms below which no expiry is set (an injected clock does not run with the server's)
--   limits     {{kind, shadow (0 or 1), limit, caller_capacity, …numbers of that kind}, …}
--   requests   one flat list: operation, number of charges, from ACQUIRE on also holder and instant (ms, 0: now),
--              then for each charge: index of its limit, of its key, cost
--   number     the call's own number, which the reply repeats
-- Returns   msgpack, one flat list: number, now, then for each charge in turn remaining, reset (ms), wait (ms; negative:
--           admitted, and one more unit is free after -wait; positive: refused); for USAGE used, reset, used before.
--           Durations only; the instant is for this script alone, when a later call brings it back.
--
-- Exactly once: a call that is sent again, because its reply was lost, gets the kept reply and charges nothing. With
-- ARGV[2] = 'lookup' a call only looks for the kept reply: it returns that, or '' where there is none. Then it leaves '' in
-- its place (a tombstone), so that the call does nothing if it arrives later.
-- ARGV[2] = 'unnamed': the one key is that of the charges, and ARGV[3] the key of the reply. In a hash slot that is being
-- migrated a call can name one key alone. The node that the slot leaves cannot keep a reply there; the other one can.
-- A shadow limit is charged where the request is admitted and the limit has room; it refuses nothing.

local PEEK, USAGE, ACQUIRE, ADJUST, RELEASE, RENEW = 1, 2, 3, 4, 5, 6
local NEVER = 9007199254740991
local REPLY_TTL_MS, TOMBSTONE_TTL_MS = 10000, 60000

local now, ttl_floor, limits, requests, number = unpack(cmsgpack.unpack(ARGV[1]))
if now < 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The functions of a kind are created where a limit of that kind is charged; a kind that is absent costs no time.
local created = {}
for i = 1, #limits do
  local numbers = limits[i]
  local kind = created[numbers[1]]
  if not kind then
    kind = KINDS[numbers[1]]()
    created[numbers[1]] = kind
  end
  limits[i] = kind.decode_limit(numbers, kind)
end

local values = redis.call('MGET', unpack(KEYS))
local reply_key, kept, keep_reply = KEYS[#KEYS], values[#KEYS], redis.call
if ARGV[2] == 'unnamed' then
  reply_key, keep_reply = ARGV[3], redis.pcall
  kept = redis.pcall('GET', reply_key)
  if type(kept) == 'table' then kept = false end
end
if kept then return kept end
if ARGV[2] == 'lookup' then
  redis.call('SET', reply_key, '', 'PX', TOMBSTONE_TTL_MS)
  return ''
end
local states, kinds = {}, {}
local reply, n = { number, now }, 2

-- The limit, the state as it stands under it, and the cost of the charge at index `i` of `requests`.
local function evaluated(i)
  local lim, k = limits[requests[i]], requests[i + 1]
  local s = states[k]
  if not s then
    s = lim.kind.load(KEYS[k], values[k])
    states[k], kinds[k] = s, lim.kind
  end
  lim.kind.evaluate(s, lim, now)
  return lim, s, requests[i + 2]
end

local function charge(first, last, operation, holder)
  local admitted = operation ~= PEEK
  for i = first, last, 3 do
    local lim, s, cost = evaluated(i)
    if not lim.shadow and lim.kind.available(s, lim) < cost then admitted = false end
  end
  for i = first, last, 3 do
    local lim, s, cost = limits[requests[i]], states[requests[i + 1]], requests[i + 2]
    local kind, remaining, reset, wait, more = lim.kind
    if s.evaluated_for ~= lim then kind.evaluate(s, lim, now) end
    if admitted and kind.available(s, lim) >= cost then
      kind.charge(s, lim, now, cost, holder)
      remaining, reset, wait, more = kind.status(s, lim, now, 1)
      wait = -(wait > 0 and wait or more or 0)
    else
      -- Permits may have been taken under a wrong clock; other states know it.
      if operation ~= PEEK and (s.repaired or (s.held or 0) > 0) then
        kind.slow = kind.slow or kind.make_slow_path()
        kind.slow.repair(s, lim, now)
      end
      remaining, reset, wait = kind.status(s, lim, now, cost)
    end
    reply[n + 1], reply[n + 2], reply[n + 3] = remaining, reset, wait
    n = n + 3
  end
end

-- A call pays for each function it creates: the operations that are rarer than a charge are created on demand.
local function make_amending()
  local function answer(remaining, reset, wait)
    reply[n + 1], reply[n + 2], reply[n + 3] = remaining, reset, wait
    n = n + 3
  end

  local function slow_path(kind)
    kind.slow = kind.slow or kind.make_slow_path()
    return kind.slow
  end

  local function amend(first, last, operation, holder, at)
    for i = first, last, 3 do
      local lim, s, cost = evaluated(i)
      local slow = slow_path(lim.kind)
      if operation == ADJUST then
        slow.adjust(s, lim, now, cost, at == 0 and now or at, holder)
      elseif operation == RELEASE then
        slow.release(s, lim, now, -cost, holder)
      elseif operation == RENEW then
        slow.renew(s, lim, now, holder)
      end
      if operation == USAGE then
        answer(slow.usage(s, lim, now))
      else
        local remaining, reset, wait, more = lim.kind.status(s, lim, now, 1)
        answer(remaining, reset, -(wait > 0 and wait or more or 0))
      end
    end
  end

  -- Whether all that is to be released was charged; answers the request where it was not.
  local function is_releasable(first, last)
    for i = first, last, 3 do
      local lim, s, cost = evaluated(i)
      if slow_path(lim.kind).releasable(s) < -cost then
        for j = first, last, 3 do
          local other, state = evaluated(j)
          local remaining, reset = other.kind.status(state, other, now, 1)
          answer(remaining, reset, NEVER)
        end
        return false
      end
    end
    return true
  end

  return { amend = amend, is_releasable = is_releasable }
end

local at, size, amending, is_correcting = 1, #requests, nil, false
while at <= size do
  local operation, count, holder, instant = requests[at], requests[at + 1], 0, 0
  local first = at + 2
  if operation >= ACQUIRE then
    holder, instant, first = requests[at + 2], requests[at + 3], at + 4
  end
  at = first + 3 * count
  if operation <= PEEK or operation == ACQUIRE then
    charge(first, at - 1, operation, holder)
  else
    amending, is_correcting = amending or make_amending(), is_correcting or operation ~= USAGE
    if operation ~= RELEASE or amending.is_releasable(first, at - 1) then
      amending.amend(first, at - 1, operation, holder, instant)
    end
  end
end

local packed, changed = cmsgpack.pack(reply), false
for k, s in pairs(states) do
  if s.dirty then
    kinds[k].save(KEYS[k], s, now, ttl_floor)
    changed = true
  end
end
-- A correction without an effect may have one later. A refused charge that was sent twice is looked up by its sender.
if changed or is_correcting then keep_reply('SET', reply_key, packed, 'PX', REPLY_TTL_MS) end
return packed
