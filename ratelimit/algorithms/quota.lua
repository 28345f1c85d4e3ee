-- Quotas, twin of quota.py, which explains the terms. Periods are those of model/calendar_period.py.
--
-- A state is one string of little-endian integers: the first millisecond of the period (6 bytes; 0 for a level), the
-- units used in it (7), and those used in the previous period (7).

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

-- The limit of a list of numbers as `codec.py` sends it.
local function decode_limit(numbers, kind)
  return { kind = kind, shadow = numbers[2] == 1, caller_capacity = numbers[4], advertised_limit = min(numbers[3], numbers[4]), start_of = START[numbers[5]], end_of = END[numbers[5]] }
end

-- A value that something else has written under this key is ignored and overwritten.
local function load(_, value)
  if not value or #value ~= SIZE then return { start = 0, used = 0, used_before = 0 } end
  local start, used, used_before = struct.unpack(FORMAT, value)
  return { start = start, used = min(used, NEVER), used_before = min(used_before, NEVER) }
end

local function evaluate(s, lim, now)
  if s.evaluated_for == lim then return end
  s.evaluated_for = lim
  local start = lim.start_of and lim.start_of(now) or 0
  if lim.end_of and s.start > lim.end_of(start) then
    -- A wrong clock charged a period that lies further ahead than the next one: the units count now.
    s.start, s.used_before, s.repaired = start, 0, true
  end
  if s.start >= start then
    s.now_start, s.now_used, s.now_used_before = s.start, s.used, s.used_before
  else
    s.now_start, s.now_used = start, 0
    s.now_used_before = lim.end_of and lim.end_of(s.start) == start and s.used or 0
  end
  s.now_end = lim.end_of and lim.end_of(s.now_start) or now
end

local function available(s, lim)
  return lim.caller_capacity - s.now_used
end

local function write(s, lim)
  s.start, s.used, s.used_before, s.dirty = s.now_start, s.now_used, s.now_used_before, lim
end

local function charge(s, lim, _, cost)
  s.now_used = min(NEVER, s.now_used + cost)
  write(s, lim)
end

local function adjust(s, lim, _, delta, at)
  if not lim.end_of or at >= s.now_start then
    s.now_used = max(0, min(NEVER, s.now_used + delta))
  elseif lim.end_of(lim.start_of(at)) == s.now_start then
    s.now_used_before = max(0, min(NEVER, s.now_used_before + delta))
  elseif delta > 0 then
    s.now_used = min(NEVER, s.now_used + delta)
  end
  write(s, lim)
end

local function release(s, lim, _, amount)
  s.now_used = s.now_used - amount
  write(s, lim)
end

-- The only write of a refused charge: of units that a wrong clock charged in a period far ahead.
local function repair(s, lim)
  s.dirty = lim
end

local function releasable(s)
  return s.now_used
end

local function usage(s, _, now)
  return s.now_used, s.now_end - now, s.now_used_before
end

local function status(s, lim, now, cost)
  local remaining, reset = max(0, lim.advertised_limit - s.now_used), s.now_end - now
  if available(s, lim) >= cost then return remaining, reset, 0 end
  return remaining, reset, (not lim.end_of or cost > lim.caller_capacity) and NEVER or reset
end

-- A period is kept until a day after the following one; a level as long as it is above zero.
local function save(key, s, now, ttl_floor)
  local lim = s.dirty
  local value = struct.pack(FORMAT, s.start, s.used, s.used_before)
  if lim.end_of then
    local ttl = lim.end_of(lim.end_of(s.start)) + DAY - now
    redis.call('SET', key, value, 'PX', max(ttl, ttl_floor))
  elseif s.used > 0 then
    redis.call('SET', key, value)
  else
    redis.call('DEL', key)
  end
end

return {
  decode_limit = decode_limit, load = load, evaluate = evaluate, available = available, charge = charge, status = status, save = save,
  make_slow_path = function()
    return { adjust = adjust, release = release, releasable = releasable, usage = usage, repair = repair }
  end,
}
