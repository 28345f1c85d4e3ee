-- The sliding window, twin of sliding_window.py; read the words there.
--
-- A state is one string of little-endian integers:
--   byte 1      the width of counts (4 or 7 bytes), plus 16 where the expiry leaves room for a carried excess
--   header      total, excess, excess stamp, last stamp, last count, last x
--   then        the older entries in the order in which they leave: stamp, count, x
-- Stamps take 6 bytes (milliseconds since the epoch). While the last slot is open, only the header is written.

local NARROW_HEAD, WIDE_HEAD = '<BI4I4I6I6I4I4', '<BI7I7I6I6I7I7'
local NARROW_ENTRY, WIDE_ENTRY = '<I6I4I4', '<I6I7I7'
local WIDE = 4294967296
local LONG = 16
local NEVER = 9007199254740991

local pack, unpack_, byte, sub = struct.pack, struct.unpack, string.byte, string.sub
local min, max, floor = math.min, math.max, math.floor

-- Terms as they come off the wire.
local function terms(t, kind)
  local limit, cap, allowance, slot, span = t[3], t[4], t[5], t[6], t[7]
  local ceiling = limit + allowance
  return {
    kind = kind, shadow = t[2] == 1,
    limit = limit, cap = cap, usable = limit < cap and limit or cap,
    allowance = allowance, ceiling = ceiling, slot = slot, span = span,
    wide = ceiling >= WIDE, long = allowance > 0,
  }
end

local function is_wide(s)
  return s.form % LONG == 7
end

-- How entries are written in a state, and how many bytes one takes.
local function entry_of(s)
  if s.form % LONG == 7 then return WIDE_ENTRY, 20 end
  return NARROW_ENTRY, 14
end

-- The state in `value`, or that of a key that is not there; without a last entry, its stamp is 0. There are just 16 fields,
-- all named at once: a table that grows, or is larger, costs time.
local function open(_, value)
  local form = value and byte(value, 1) or 0
  local wide = form == 7 or form == 23
  local size = wide and 41 or 29
  local _, total, excess, excess_stamp, stamp, count, x, older = 0, 0, 0, 0, 0, 0, 0, ''
  -- What something else has written under our key means nothing, and is written over.
  local good = (wide or form == 4 or form == 20) and #value >= size and (#value - size) % (wide and 20 or 14) == 0
  if good then
    _, total, excess, excess_stamp, stamp, count, x = unpack_(wide and WIDE_HEAD or NARROW_HEAD, value)
    older = #value > size and sub(value, size + 1) or ''
  end
  return {
    form = good and form or 4, total = total, excess = excess, excess_stamp = excess_stamp,
    stamp = stamp, count = count, x = x, older = older, pos = 1, rewrite = not good, dirty = false, seen = false,
    v_total = 0, v_excess = 0, v_excess_stamp = 0, v_alive = false,
  }
end

-- What is rarer than a charge: functions cost time to make, in every call, so these are made where they are asked for.
local function rarely(t)
  local kind = t.kind
  kind.rare = kind.rare or kind.make_rare()
  return kind.rare
end

local function lapse(t, stamp)
  return stamp + 1 + 2 * t.span + t.slot
end

-- The window as it stands at `now` under `t`, kept in the state as v_…, without changing the rest of it.
local function look(s, t, now)
  if s.seen == t then return end
  s.seen = t
  local total, excess, excess_stamp, alive, pos = s.total, s.excess, s.excess_stamp, s.stamp > 0, 1
  if alive then
    local horizon = now - t.span
    local format, size = entry_of(s)
    local older = s.older
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

-- A comparison takes a fraction of the time of a call of math.min.
local function room(s, t)
  local most, excess = t.ceiling, s.v_excess
  if excess > 0 then most = most - (excess < t.allowance and excess or t.allowance) end
  return (most < t.cap and most or t.cap) - s.v_total
end

local function charge(s, t, now, cost)
  if (t.wide or s.v_total + cost >= WIDE) and not is_wide(s) then
    rarely(t).widen(s)
    s.seen = false
    look(s, t, now)
  end
  local total, excess = s.v_total + cost, s.v_excess
  local x = total - t.limit + (excess < t.allowance and excess or t.allowance)
  if x < 0 then x = 0 end
  if s.pos > 1 then
    s.older, s.pos, s.rewrite = sub(s.older, s.pos), 1, true
  end
  if s.v_alive and s.stamp >= now then
    s.count, s.x = s.count + cost, x
  else
    if s.v_alive then
      s.older = s.older .. pack(entry_of(s), s.stamp, s.count, s.x)
    end
    s.stamp, s.count, s.x = floor(now / t.slot) * t.slot + t.slot - 1, cost, x
    s.rewrite = true
  end
  if t.long and s.form < LONG then s.form, s.rewrite = s.form + LONG, true end
  s.total, s.v_total, s.v_alive = total, total, true
  s.excess, s.excess_stamp = excess, s.v_excess_stamp
  s.dirty = t
end

-- remaining, reset (ms) and the wait (ms) of a further `cost`, as the view stands.
local function answer(s, t, now, cost)
  local remaining, reset = t.usable - s.v_total, 0
  if remaining < 0 then remaining = 0 end
  local ms = room(s, t) >= cost and 0 or rarely(t).wait(s, t, now, cost)
  if ms > 0 and ms < NEVER then
    reset = ms
  elseif remaining > 0 then
    reset = s.v_alive and s.stamp + 1 + t.span - now or 0
  else
    reset = rarely(t).free_again(s, t, now)
  end
  return remaining, reset, ms
end

-- Write the state back: the header alone while its slot and its expiry stand, else all of it, always with an expiry.
local function save(key, s, now, ttl_floor)
  local t = s.dirty
  local head = pack(is_wide(s) and WIDE_HEAD or NARROW_HEAD, s.form, s.total, s.excess, s.excess_stamp, s.stamp, s.count, s.x)
  if not s.rewrite then
    redis.call('SETRANGE', key, 0, head)
    return
  end
  -- The margin covers a limit that changes meanwhile, and with it the width of the slots.
  local ttl = s.stamp + 1 + t.span + 3 * (floor(t.span / 64) + 2) - now
  if s.form >= LONG then ttl = ttl + t.span + t.slot end
  redis.call('SET', key, head .. s.older, 'PX', max(ttl, ttl_floor))
end

local function make_rare()
  local function widen(s)
    local parts, format, size = {}, entry_of(s)
    s.form = s.form + 3
    for at = 1, #s.older, size do
      parts[#parts + 1] = pack(WIDE_ENTRY, unpack_(format, s.older, at))
    end
    s.older, s.pos, s.rewrite = table.concat(parts), 1, true
  end

  local function wait(s, t, now, cost)
    if cost > t.cap then return NEVER end
    local total, excess, lapses = s.v_total, s.v_excess, lapse(t, s.v_excess_stamp)
    local format, size = entry_of(s)
    local older, pos = s.older, s.pos
    local bytes = #older
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
      if total + cost <= min(t.cap, t.ceiling - min(excess, t.allowance)) then return leave - now end
    end
    return lapses - now
  end

  local function free_again(s, t, now)
    if room(s, t) < 1 then
      local ms = wait(s, t, now, 1)
      return ms < NEVER and ms or 0
    end
    local total, format, size = s.v_total, entry_of(s)
    for at = s.pos, #s.older, size do
      local stamp, count = unpack_(format, s.older, at)
      total = total - count
      if total < t.usable then return stamp + 1 + t.span - now end
    end
    return s.v_alive and s.stamp + 1 + t.span - now or 0
  end

  -- The entries that have not left, and back into the state.
  local function entries(s)
    local list, format, size = {}, entry_of(s)
    for at = s.pos, #s.older, size do
      list[#list + 1] = { unpack_(format, s.older, at) }
    end
    if s.v_alive then list[#list + 1] = { s.stamp, s.count, s.x } end
    return list
  end

  local function put_back(s, t, list)
    local parts = {}
    for i = 1, #list - 1 do
      parts[i] = pack(entry_of(s), list[i][1], list[i][2], list[i][3])
    end
    s.stamp, s.count, s.x = list[#list][1], list[#list][2], list[#list][3]
    s.older, s.pos, s.rewrite, s.dirty = table.concat(parts), 1, true, t
    s.total, s.excess, s.excess_stamp = s.v_total, s.v_excess, s.v_excess_stamp
  end

  local function change(s, t, list, at, delta)
    s.v_total = s.v_total + delta
    list[at][2] = list[at][2] + delta
    for i = at, #list do
      if list[i][3] > 0 then list[i][3] = max(0, list[i][3] + delta) end
    end
    if delta > 0 then
      local last = list[#list]
      last[3] = max(last[3], s.v_total - t.limit + min(s.v_excess, t.allowance))
    end
  end

  -- The entry of a moment that is over, for what was charged elsewhere then.
  local function insert(s, t, now, list, at, before)
    local stamp = floor(at / t.slot) * t.slot + t.slot - 1
    if stamp >= now then return nil end
    local place = before or #list + 1
    local x = place > 1 and list[place - 1][3] or min(s.v_excess, t.allowance)
    table.insert(list, place, { stamp, 0, x })
    if t.wide and not is_wide(s) then s.form = s.form + 3 end
    if t.long and s.form < LONG then s.form = s.form + LONG end
    s.v_alive = true
    return place
  end

  local function adjust(s, t, now, delta, at)
    if delta > 0 then delta = min(delta, NEVER - s.v_total) end
    local list, found = entries(s), nil
    for i, entry in ipairs(list) do
      if entry[1] >= at then
        found = i
        break
      end
    end
    if not found or list[found][1] - at >= t.slot then
      if at < now - t.span then
        found = nil
      elseif delta > 0 then
        found = insert(s, t, now, list, at, found)
      end
    end
    if not found then
      if delta > 0 then charge(s, t, now, delta) end
      return
    end
    if s.v_total + delta >= WIDE and not is_wide(s) then s.form = s.form + 3 end
    change(s, t, list, found, max(delta, -list[found][2]))
    put_back(s, t, list)
  end

  local function give_back(s, t, _, amount)
    local list = entries(s)
    for i = #list, 1, -1 do
      local taken = min(list[i][2], amount)
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

  return {
    widen = widen, wait = wait, free_again = free_again,
    adjust = adjust, give_back = give_back, taken = taken, usage = usage,
  }
end

return {
  terms = terms, open = open, look = look, room = room, charge = charge, answer = answer, save = save,
  make_rare = make_rare,
}
