-- Quotas, twin of quota.py; read the words there. Periods are those of periods.py.
--
-- A state is one string of little-endian integers: the first millisecond of the period (6 bytes; 0 for a level), the
-- units used in it (7), and those used in the period before (7).

local FORMAT, SIZE = '<I6I7I7', 20
local NEVER = 9007199254740991
local HOUR, DAY = 3600000, 86400000
local floor, max, min = math.floor, math.max, math.min

local function month_of(day)
  day = day + 719468
  local era = floor(day / 146097)
  local of_era = day - era * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local month = floor((5 * of_year + 2) / 153)
  month = month < 10 and month + 3 or month - 9
  return era * 400 + year + (month <= 2 and 1 or 0), month
end

local function first_day(year, month)
  if month <= 2 then year = year - 1 end
  local era = floor(year / 400)
  local of_era = year - era * 400
  local of_year = floor((153 * (month + (month <= 2 and 9 or -3)) + 2) / 5)
  return era * 146097 + of_era * 365 + floor(of_era / 4) - floor(of_era / 100) + of_year - 719468
end

local function calendar(by_month)
  return function(ms)
    local year, month = month_of(floor(ms / DAY))
    return first_day(year, by_month and month or 1) * DAY
  end
end

local month, year = calendar(true), calendar(false)

-- By the number of the period on the wire; 0 is a level.
local START = {
  function(ms) return ms - ms % HOUR end,
  function(ms) return ms - ms % DAY end,
  function(ms) return (floor(ms / DAY) - (floor(ms / DAY) + 3) % 7) * DAY end,
  month,
  year,
}
local END = {
  function(start) return start + HOUR end,
  function(start) return start + DAY end,
  function(start) return start + 7 * DAY end,
  function(start) return month(start + 45 * DAY) end,
  function(start) return year(start + 400 * DAY) end,
}

-- Terms as they come off the wire.
local function terms(t, kind)
  return { kind = kind, shadow = t[2] == 1, cap = t[4], usable = min(t[3], t[4]), start_of = START[t[5]], end_of = END[t[5]] }
end

-- What something else has written under our key means nothing, and is written over.
local function open(_, value)
  if not value or #value ~= SIZE then return { start = 0, used = 0, before = 0 } end
  local start, used, before = struct.unpack(FORMAT, value)
  return { start = start, used = used, before = before }
end

local function look(s, t, now)
  if s.seen == t then return end
  s.seen = t
  local start = t.start_of and t.start_of(now) or 0
  if s.start >= start then
    s.v_start, s.v_used, s.v_before = s.start, s.used, s.before
  else
    s.v_start, s.v_used = start, 0
    s.v_before = t.end_of and t.end_of(s.start) == start and s.used or 0
  end
  s.v_end = t.end_of and t.end_of(s.v_start) or now
end

local function room(s, t)
  return t.cap - s.v_used
end

local function write(s, t)
  s.start, s.used, s.before, s.dirty = s.v_start, s.v_used, s.v_before, t
end

local function charge(s, t, _, cost)
  s.v_used = min(NEVER, s.v_used + cost)
  write(s, t)
end

local function adjust(s, t, _, delta, at)
  if not t.end_of or at >= s.v_start then
    s.v_used = max(0, min(NEVER, s.v_used + delta))
  elseif t.end_of(t.start_of(at)) == s.v_start then
    s.v_before = max(0, min(NEVER, s.v_before + delta))
  elseif delta > 0 then
    s.v_used = min(NEVER, s.v_used + delta)
  end
  write(s, t)
end

local function give_back(s, t, _, amount)
  s.v_used = s.v_used - amount
  write(s, t)
end

local function taken(s)
  return s.v_used
end

local function usage(s, _, now)
  return s.v_used, s.v_end - now, s.v_before
end

local function answer(s, t, now, cost)
  local remaining, reset = max(0, t.usable - s.v_used), s.v_end - now
  if room(s, t) >= cost then return remaining, reset, 0 end
  return remaining, reset, (not t.end_of or cost > t.cap) and NEVER or reset
end

-- A period is kept until a day after the following one; a level as long as it is above zero.
local function save(key, s, now, ttl_floor)
  local t = s.dirty
  local value = struct.pack(FORMAT, s.start, s.used, s.before)
  if t.end_of then
    local ttl = t.end_of(t.end_of(s.start)) + DAY - now
    redis.call('SET', key, value, 'PX', max(ttl, ttl_floor))
  elseif s.used > 0 then
    redis.call('SET', key, value)
  else
    redis.call('DEL', key)
  end
end

return {
  terms = terms, open = open, look = look, room = room, charge = charge, answer = answer, save = save,
  make_rare = function() return { adjust = adjust, give_back = give_back, taken = taken, usage = usage } end,
}
