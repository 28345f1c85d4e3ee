-- The sliding window, twin of sliding_window.py; read the words there.
--
-- A state is one string of little-endian integers:
--   byte 1      the width of counts (4 or 7 bytes), plus 16 where the expiry leaves room for a carried excess
--   header      total, excess, excess stamp, last stamp, last count, last x
--   then        the older entries in the order in which they leave: stamp, count, x
-- Stamps take 6 bytes (milliseconds since the epoch). While the last slot is open, only the header is written.

local HEAD = { [4] = '<I4I4I6I6I4I4', [7] = '<I7I7I6I6I7I7' }
local HEAD_SIZE = { [4] = 29, [7] = 41 }
local ENTRY = { [4] = '<I6I4I4', [7] = '<I6I7I7' }
local ENTRY_SIZE = { [4] = 14, [7] = 20 }
local WIDE = 4294967296
local LONG = 16
local NEVER = 9007199254740991

local pack, unpack_ = struct.pack, struct.unpack

-- Terms as they come off the wire.
local function terms(t)
  local limit, cap, allowance, slot, span = t[3], t[4], t[5], t[6], t[7]
  return {
    limit = limit, cap = cap, usable = math.min(limit, cap),
    allowance = allowance, ceiling = limit + allowance, slot = slot, span = span,
    width = limit + allowance < WIDE and 4 or 7,
    long = allowance > 0 and LONG or 0,
  }
end

local function widen(s)
  local parts, size = {}, ENTRY_SIZE[4]
  for at = 1, #s.older, size do
    parts[#parts + 1] = pack(ENTRY[7], unpack_(ENTRY[4], s.older, at))
  end
  s.older, s.width, s.pos, s.rewrite = table.concat(parts), 7, 1, true
end

-- The state in `value`, or that of a key that is not there. `alive` says whether there is a last entry.
local function open(_, value)
  local s = { total = 0, excess = 0, excess_stamp = 0, stamp = 0, count = 0, x = 0, alive = false,
    older = '', width = 4, long = 0, dirty = false, rewrite = true }
  local first = value and string.byte(value, 1) or 0
  local long = first >= LONG and LONG or 0
  local size = HEAD_SIZE[first - long]
  -- What something else has written under our key means nothing, and is written over.
  if size and #value >= size and (#value - size) % ENTRY_SIZE[first - long] == 0 then
    s.long, s.width = long, first - long
    s.total, s.excess, s.excess_stamp, s.stamp, s.count, s.x = unpack_(HEAD[s.width], value, 2)
    s.older = string.sub(value, HEAD_SIZE[s.width] + 1)
    s.alive, s.rewrite = true, false
  end
  return s
end

local function lapse(t, stamp)
  return stamp + 1 + 2 * t.span + t.slot
end

-- The window as it stands at `now` under `t`, kept in the state as v_…, without changing the rest of it.
local function look(s, t, now)
  if s.seen == t then return end
  s.seen = t
  local total, excess, excess_stamp, alive, pos = s.total, s.excess, s.excess_stamp, s.alive, 1
  if alive then
    local horizon = now - t.span
    local format, size, older = ENTRY[s.width], ENTRY_SIZE[s.width], s.older
    local bytes = #older
    while pos <= bytes do
      local stamp, count, x = unpack_(format, older, pos)
      if stamp >= horizon then break end
      total, excess, excess_stamp, pos = total - count, x, stamp, pos + size
    end
    if pos > bytes and s.stamp < horizon then
      total, excess, excess_stamp, alive = total - s.count, s.x, s.stamp, false
    end
  end
  if excess > 0 and now >= lapse(t, excess_stamp) then excess = 0 end
  s.v_total, s.v_excess, s.v_excess_stamp, s.v_alive, s.pos = total, excess, excess_stamp, alive, pos
end

local function room(s, t)
  return math.min(t.cap, t.ceiling - math.min(s.v_excess, t.allowance)) - s.v_total
end

local function charge(s, t, now, cost)
  if s.width == 4 and (t.width == 7 or s.v_total + cost >= WIDE) then
    widen(s)
    s.seen = nil
    look(s, t, now)
  end
  local x = math.max(0, s.v_total + cost - t.limit + math.min(s.v_excess, t.allowance))
  if s.pos > 1 then
    s.older, s.pos, s.rewrite = string.sub(s.older, s.pos), 1, true
  end
  if s.v_alive and s.stamp >= now then
    s.count, s.x = s.count + cost, x
  else
    if s.v_alive then
      s.older = s.older .. pack(ENTRY[s.width], s.stamp, s.count, s.x)
    end
    s.stamp, s.count, s.x = math.floor(now / t.slot) * t.slot + t.slot - 1, cost, x
    s.rewrite = true
  end
  if t.long > s.long then s.long, s.rewrite = t.long, true end
  s.total = s.v_total + cost
  s.excess, s.excess_stamp, s.alive = s.v_excess, s.v_excess_stamp, true
  s.v_total, s.v_alive = s.total, true
  s.dirty = t
end

-- The entries that have not left, and back into the state.
local function entries(s)
  local list, format, size = {}, ENTRY[s.width], ENTRY_SIZE[s.width]
  for at = s.pos, #s.older, size do
    list[#list + 1] = { unpack_(format, s.older, at) }
  end
  if s.v_alive then list[#list + 1] = { s.stamp, s.count, s.x } end
  return list
end

local function put_back(s, t, list)
  local parts = {}
  for i = 1, #list - 1 do
    parts[i] = pack(ENTRY[s.width], list[i][1], list[i][2], list[i][3])
  end
  s.stamp, s.count, s.x = list[#list][1], list[#list][2], list[#list][3]
  s.older, s.pos, s.rewrite, s.dirty = table.concat(parts), 1, true, t
  s.total, s.excess, s.excess_stamp, s.alive = s.v_total, s.v_excess, s.v_excess_stamp, true
end

local function change(s, t, list, at, delta)
  s.v_total = s.v_total + delta
  list[at][2] = list[at][2] + delta
  for i = at, #list do
    if list[i][3] > 0 then list[i][3] = math.max(0, list[i][3] + delta) end
  end
  if delta > 0 then
    local last = list[#list]
    last[3] = math.max(last[3], s.v_total - t.limit + math.min(s.v_excess, t.allowance))
  end
end

local function adjust(s, t, now, delta, at)
  if delta > 0 then delta = math.min(delta, NEVER - s.v_total) end
  local list, found = entries(s), nil
  for i, entry in ipairs(list) do
    if entry[1] >= at then
      if at >= now - t.span or entry[1] - at < t.slot then found = i end
      break
    end
  end
  if not found then
    if delta > 0 then charge(s, t, now, delta) end
    return
  end
  if s.width == 4 and s.v_total + delta >= WIDE then s.width = 7 end
  change(s, t, list, found, math.max(delta, -list[found][2]))
  put_back(s, t, list)
end

local function give_back(s, t, _, amount)
  local list = entries(s)
  for i = #list, 1, -1 do
    local taken = math.min(list[i][2], amount)
    change(s, t, list, i, -taken)
    amount = amount - taken
  end
  if #list > 0 then put_back(s, t, list) end
end

local function taken(s)
  return s.v_total
end

local function usage(s, t, now)
  return s.v_total, s.v_alive and s.stamp + 1 + t.span - now or 0, 0
end

local function wait(s, t, now, cost)
  if cost > t.cap then return NEVER end
  local total, excess, lapses = s.v_total, s.v_excess, lapse(t, s.v_excess_stamp)
  local format, size, older = ENTRY[s.width], ENTRY_SIZE[s.width], s.older
  local bytes, pos = #older, s.pos
  while pos <= bytes or (s.v_alive and pos <= bytes + 1) do
    local stamp, count, x
    if pos <= bytes then
      stamp, count, x = unpack_(format, older, pos)
      pos = pos + size
    else
      stamp, count, x = s.stamp, s.count, s.x
      pos = bytes + 2
    end
    local leave = stamp + 1 + t.span
    if excess > 0 and lapses <= leave then
      excess = 0
      if total + cost <= t.cap then return lapses - now end
    end
    total, excess, lapses = total - count, x, lapse(t, stamp)
    if total + cost <= math.min(t.cap, t.ceiling - math.min(excess, t.allowance)) then return leave - now end
  end
  return lapses - now
end

local function free_again(s, t, now)
  if room(s, t) < 1 then
    local ms = wait(s, t, now, 1)
    return ms < NEVER and ms or 0
  end
  local total, format, size = s.v_total, ENTRY[s.width], ENTRY_SIZE[s.width]
  for at = s.pos, #s.older, size do
    local stamp, count = unpack_(format, s.older, at)
    total = total - count
    if total < t.usable then return stamp + 1 + t.span - now end
  end
  return s.v_alive and s.stamp + 1 + t.span - now or 0
end

-- remaining, reset (ms) and the wait (ms) of a further `cost`, as the view stands.
local function answer(s, t, now, cost)
  local remaining, reset = math.max(0, t.usable - s.v_total), 0
  local ms = room(s, t) >= cost and 0 or wait(s, t, now, cost)
  if ms > 0 and ms < NEVER then
    reset = ms
  elseif remaining > 0 then
    reset = s.v_alive and s.stamp + 1 + t.span - now or 0
  else
    reset = free_again(s, t, now)
  end
  return remaining, reset, ms
end

-- Write the state back: the header alone while its slot and its expiry stand, else all of it, always with an expiry.
local function save(key, s, now, ttl_floor)
  local t = s.dirty
  local head = string.char(s.width + s.long)
    .. pack(HEAD[s.width], s.total, s.excess, s.excess_stamp, s.stamp, s.count, s.x)
  if not s.rewrite then
    redis.call('SETRANGE', key, 0, head)
    return
  end
  -- The margin covers a limit that changes meanwhile, and with it the width of the slots.
  local ttl = s.stamp + 1 + t.span + 3 * (math.floor(t.span / 64) + 2) - now
  if s.long > 0 then ttl = ttl + t.span + t.slot end
  redis.call('SET', key, head .. s.older, 'PX', string.format('%.0f', math.max(ttl, ttl_floor)))
end

return {
  terms = terms, open = open, look = look, room = room, charge = charge, answer = answer, save = save,
  adjust = adjust, give_back = give_back, taken = taken, usage = usage,
}
