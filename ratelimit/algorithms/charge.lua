-- Decides a batch of requests: each is charged at all of its policies or at none.
--
-- KEYS      the keys of all charges, each once, and last the one under which the reply is kept
-- ARGV[1]   msgpack {now, ttl_floor, terms, requests, number}
--   now        ms since the epoch, or -1: the server's TIME, read once
--   ttl_floor  ms below which no expiry is set (a clock that was handed in does not run with the server's)
--   terms      {{kind, shadow (0 or 1), limit, cap, …numbers of that kind}, …}
--   requests   one flat list: what to do (OPS), number of charges, from HOLD on also holder and instant (ms, 0: now),
--              then for each charge: index of its terms, of its key, cost
--   number     the call's own, which comes back with the reply
-- Returns   msgpack, one flat list: number, now, then for each charge in turn remaining, reset (ms), wait (ms; below zero:
--           admitted, and the next unit is free after -wait; above: refused); for USAGE used, reset, used before.
--           Durations only; the instant means something to this script alone, when it comes back.
--
-- A call that is sent again, because nobody knows whether it was done, gets the reply that is kept, and does nothing.
-- With an ARGV[2] it only gets that, or '' where there is none.
-- A shadow policy is charged where the request is and it has room itself; it refuses nobody.

local PEEK, USAGE, HOLD, ADJUST, RELEASE, RENEW = 1, 2, 3, 4, 5, 6
local NEVER = 9007199254740991
local KEPT = 10000

local now, ttl_floor, all_terms, requests, number = unpack(cmsgpack.unpack(ARGV[1]))
if now < 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A kind is made where it is asked for; one that is not costs no time.
local made = {}
for i = 1, #all_terms do
  local t = all_terms[i]
  local kind = made[t[1]]
  if not kind then
    kind = KINDS[t[1]]()
    made[t[1]] = kind
  end
  all_terms[i] = kind.terms(t, kind)
end

local values = redis.call('MGET', unpack(KEYS))
local known = values[#KEYS]
if known or ARGV[2] then return known or '' end
local states, kinds = {}, {}
local reply, n = { number, now }, 2

-- The terms, the state as it stands under them, and the cost of the charge at `i`.
local function seen(i)
  local t, k = all_terms[requests[i]], requests[i + 1]
  local s = states[k]
  if not s then
    s = t.kind.open(KEYS[k], values[k])
    states[k], kinds[k] = s, t.kind
  end
  t.kind.look(s, t, now)
  return t, s, requests[i + 2]
end

local function charge(first, last, op, holder)
  local admitted = op ~= PEEK
  for i = first, last, 3 do
    local t, s, cost = seen(i)
    if not t.shadow and t.kind.room(s, t) < cost then admitted = false end
  end
  for i = first, last, 3 do
    local t, s, cost = all_terms[requests[i]], states[requests[i + 1]], requests[i + 2]
    local kind, remaining, reset, wait = t.kind
    if s.seen ~= t then kind.look(s, t, now) end
    if admitted and kind.room(s, t) >= cost then
      kind.charge(s, t, now, cost, holder)
      remaining, reset, wait = kind.answer(s, t, now, 1)
      wait = -wait
    else
      remaining, reset, wait = kind.answer(s, t, now, cost)
    end
    reply[n + 1], reply[n + 2], reply[n + 3] = remaining, reset, wait
    n = n + 3
  end
end

-- Functions cost time to make, in every call: what is rarer than a charge is made where it is asked for.
local function make_amending()
  local function say(remaining, reset, wait)
    reply[n + 1], reply[n + 2], reply[n + 3] = remaining, reset, wait
    n = n + 3
  end

  local function rarely(kind)
    kind.rare = kind.rare or kind.make_rare()
    return kind.rare
  end

  local function amend(first, last, op, holder, at)
    for i = first, last, 3 do
      local t, s, cost = seen(i)
      local does = rarely(t.kind)
      if op == ADJUST then
        does.adjust(s, t, now, cost, at == 0 and now or at, holder)
      elseif op == RELEASE then
        does.give_back(s, t, now, -cost, holder)
      elseif op == RENEW then
        does.renew(s, t, now, holder)
      end
      if op == USAGE then
        say(does.usage(s, t, now))
      else
        local remaining, reset, wait = t.kind.answer(s, t, now, 1)
        say(remaining, reset, -wait)
      end
    end
  end

  -- Whether all that is to be released was taken; says so where it was not.
  local function has_taken(first, last)
    for i = first, last, 3 do
      local t, s, cost = seen(i)
      if rarely(t.kind).taken(s) < -cost then
        for j = first, last, 3 do
          local other, state = seen(j)
          local remaining, reset = other.kind.answer(state, other, now, 1)
          say(remaining, reset, NEVER)
        end
        return false
      end
    end
    return true
  end

  return { amend = amend, has_taken = has_taken }
end

local at, size, amending = 1, #requests, nil
while at <= size do
  local op, count, holder, instant = requests[at], requests[at + 1], 0, 0
  local first = at + 2
  if op >= HOLD then
    holder, instant, first = requests[at + 2], requests[at + 3], at + 4
  end
  at = first + 3 * count
  if op <= PEEK or op == HOLD then
    charge(first, at - 1, op, holder)
  else
    amending = amending or make_amending()
    if op ~= RELEASE or amending.has_taken(first, at - 1) then
      amending.amend(first, at - 1, op, holder, instant)
    end
  end
end

local told, changed = cmsgpack.pack(reply), false
for k, s in pairs(states) do
  if s.dirty then
    kinds[k].save(KEYS[k], s, now, ttl_floor)
    changed = true
  end
end
if changed then redis.call('SET', KEYS[#KEYS], told, 'PX', KEPT) end
return told
