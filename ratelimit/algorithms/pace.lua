-- A pace, twin of pace.py; read the words there.
--
-- A state is one string of little-endian integers of 7 bytes: the next turn (µs), the rest (in parts of the limit), and
-- for each run of turns given back from when to when (µs).

local WIDTH, FORMAT, NEVER, SLACK, MOST_RUNS = 14, '<I7I7', 9007199254740991, 1000, 64
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

-- Terms as they come off the wire.
local function terms(t, kind)
  local period = t[5] * 1000000
  return {
    kind = kind, shadow = t[2] == 1, limit = t[3], step = floor(period / t[3]), over = period % t[3], patience = t[6] * 1000,
  }
end

-- What something else has written under our key means nothing, and is written over.
local function open(_, value)
  local s = { next = 0, rest = 0, runs = {} }
  if not value or #value < WIDTH or #value % WIDTH ~= 0 then return s end
  s.next, s.rest = struct.unpack(FORMAT, value)
  for at = WIDTH + 1, #value, WIDTH do
    local from, to = struct.unpack(FORMAT, value, at)
    s.runs[#s.runs + 1] = { from, to }
  end
  return s
end

local function meet(ends, starts)
  return ends - starts >= -1 and ends - starts <= 1
end

local function look(s, t, now)
  s.seen, s.turn = t, max(s.next, now * 1000)
  s.wait = s.turn - now * 1000
end

local function room(s, t)
  return s.wait <= t.patience and 1 or 0
end

local function charge(s, t, now)
  if now * 1000 > s.next then s.rest, s.runs = 0, {} end
  local rest = s.rest + t.over
  local more = floor(rest / t.limit)
  s.rest = rest - more * t.limit
  s.next, s.dirty = s.turn + t.step + more, t
end

local function shorten(s, start)
  s.next, s.rest = start, 0
  local runs = s.runs
  while #runs > 0 and meet(runs[#runs][2], s.next) do
    s.next = table.remove(runs)[1]
  end
end

local function remember(s, from, to)
  local runs, at = s.runs, 1
  while at <= #runs and runs[at][1] < from do at = at + 1 end
  if at <= #runs and meet(to, runs[at][1]) then to = table.remove(runs, at)[2] end
  if at > 1 and meet(runs[at - 1][2], from) then
    at = at - 1
    from = table.remove(runs, at)[1]
  end
  table.insert(runs, at, { from, to })
  if #runs > MOST_RUNS then table.remove(runs, 1) end
end

local function adjust(s, t, now, delta, _, holder)
  if delta < 0 and holder < s.next then
    if meet(holder + t.step, s.next) then shorten(s, holder) else remember(s, holder, holder + t.step) end
    s.dirty = t
  end
  look(s, t, now)
end

local function give_back() end

local function taken()
  return 0
end

local function usage(s)
  return 0, ceil(s.wait / 1000), 0
end

-- What was given a turn was patient enough.
local function answer(s, t)
  return s.turn, s.wait, min(NEVER, max(0, ceil((s.wait - t.patience) / 1000)))
end

local function save(key, s, now, ttl_floor)
  if s.next <= now * 1000 then
    redis.call('DEL', key)
    return
  end
  local parts = { struct.pack(FORMAT, s.next, s.rest) }
  for i = 1, #s.runs do parts[i + 1] = struct.pack(FORMAT, s.runs[i][1], s.runs[i][2]) end
  local ttl = floor(s.next / 1000) + 1 + SLACK - now
  redis.call('SET', key, table.concat(parts), 'PX', string.format('%.0f', max(ttl, ttl_floor)))
end

return {
  terms = terms, open = open, look = look, room = room, charge = charge, answer = answer, save = save,
  make_rare = function() return { adjust = adjust, give_back = give_back, taken = taken, usage = usage } end,
}
