-- Decides a batch of requests: each is charged at all of its policies or at none.
--
-- KEYS      the keys of all charges, each once
-- ARGV[1]   msgpack {now, ttl_floor, terms, requests}
--   now        ms since the epoch, or -1: the server's TIME, read once
--   ttl_floor  ms below which no expiry is set (a clock that was handed in does not run with the server's)
--   terms      {{kind, …numbers of that kind}, …}
--   requests   one flat list: peek (0 or 1), number of charges, then for each charge: index of its terms, of its key, cost
-- Returns   msgpack, one flat list: for each charge in turn remaining, reset (ms), wait (ms; below zero: admitted, and
--           the next unit is free after -wait; above: refused). Durations only, never instants.
--
-- A shadow policy is charged where the request is and it has room itself; it refuses nobody.

local now, ttl_floor, all_terms, requests = unpack(cmsgpack.unpack(ARGV[1]))
if now < 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

for i, t in ipairs(all_terms) do
  local kind = KINDS[t[1]]
  all_terms[i] = kind.terms(t)
  all_terms[i].kind = kind
end

local values = redis.call('MGET', unpack(KEYS))
local states, kinds = {}, {}
local reply, n = {}, 0

local function decide(at, count, peek)
  local admitted = true
  for i = at, at + 3 * (count - 1), 3 do
    local t, k, cost = all_terms[requests[i]], requests[i + 1], requests[i + 2]
    if not states[k] then
      states[k], kinds[k] = t.kind.open(values[k]), t.kind
    end
    t.kind.look(states[k], t, now)
    if not t.shadow and t.kind.room(states[k], t) < cost then admitted = false end
  end
  for i = at, at + 3 * (count - 1), 3 do
    local t, s, cost = all_terms[requests[i]], states[requests[i + 1]], requests[i + 2]
    local remaining, reset, wait
    t.kind.look(s, t, now)
    if admitted and not peek and t.kind.room(s, t) >= cost then
      t.kind.charge(s, t, now, cost)
      remaining, reset, wait = t.kind.answer(s, t, now, 1)
      wait = -wait
    else
      remaining, reset, wait = t.kind.answer(s, t, now, cost)
    end
    reply[n + 1], reply[n + 2], reply[n + 3] = remaining, reset, wait
    n = n + 3
  end
end

local at, size = 1, #requests
while at <= size do
  local count = requests[at + 1]
  decide(at + 2, count, requests[at] == 1)
  at = at + 2 + 3 * count
end

for k, s in pairs(states) do
  if s.dirty then kinds[k].save(KEYS[k], s, now, ttl_floor) end
end
return cmsgpack.pack(reply)
