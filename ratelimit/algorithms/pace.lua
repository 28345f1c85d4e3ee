-- A pace, twin of pace.py, which explains the terms.
--
-- A state is one string of little-endian integers of 7 bytes: the start of the next reservation (µs), the remainder (in
-- parts of the limit), and for each gap of cancelled reservations from when to when (µs).

local WIDTH, FORMAT, NEVER, EXPIRY_MARGIN_MS, MAX_GAPS = 14, '<I7I7', 9007199254740991, 1000, 64
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

-- The limit of a list of numbers as `codec.py` sends it.
local function decode_limit(numbers, kind)
  local period = numbers[5] * 1000000
  return {
    kind = kind, shadow = numbers[2] == 1, limit = numbers[3], interval = floor(period / numbers[3]),
    carry_per_step = period % numbers[3], max_wait_us = numbers[6] * 1000,
  }
end

-- A value that something else has written under this key is ignored and overwritten.
local function load(_, value)
  local s = { next = 0, remainder = 0, gaps = {} }
  if not value or #value < WIDTH or #value % WIDTH ~= 0 then return s end
  s.next, s.remainder = struct.unpack(FORMAT, value)
  for at = WIDTH + 1, #value, WIDTH do
    local from, to = struct.unpack(FORMAT, value, at)
    s.gaps[#s.gaps + 1] = { from, to }
  end
  return s
end

local function adjoin(ends, starts)
  return ends - starts >= -1 and ends - starts <= 1
end

local function evaluate(s, lim, now)
  s.evaluated_for, s.start = lim, max(s.next, now * 1000)
  s.wait = s.start - now * 1000
end

local function available(s, lim)
  return s.wait <= lim.max_wait_us and 1 or 0
end

local function charge(s, lim, now)
  if now * 1000 > s.next then s.remainder, s.gaps = 0, {} end
  local remainder = s.remainder + lim.carry_per_step
  local carry = floor(remainder / lim.limit)
  s.remainder = remainder - carry * lim.limit
  s.next, s.dirty = s.start + lim.interval + carry, lim
end

local function cancel_last(s, start)
  s.next, s.remainder = start, 0
  local gaps = s.gaps
  while #gaps > 0 and adjoin(gaps[#gaps][2], s.next) do
    s.next = table.remove(gaps)[1]
  end
end

local function remember_gap(s, from, to)
  local gaps, at = s.gaps, 1
  while at <= #gaps and gaps[at][1] < from do at = at + 1 end
  if at <= #gaps and adjoin(to, gaps[at][1]) then to = table.remove(gaps, at)[2] end
  if at > 1 and adjoin(gaps[at - 1][2], from) then
    at = at - 1
    from = table.remove(gaps, at)[1]
  end
  table.insert(gaps, at, { from, to })
  if #gaps > MAX_GAPS then table.remove(gaps, 1) end
end

local function adjust(s, lim, now, delta, _, holder)
  if delta < 0 and holder < s.next then
    if adjoin(holder + lim.interval, s.next) then cancel_last(s, holder) else remember_gap(s, holder, holder + lim.interval) end
    s.dirty = lim
  end
  evaluate(s, lim, now)
end

local function release() end

local function releasable()
  return 0
end

local function usage(s)
  return 0, ceil(s.wait / 1000), 0
end

local function status(s, lim)
  return s.start, s.wait, min(NEVER, max(0, ceil((s.wait - lim.max_wait_us) / 1000)))
end

local function save(key, s, now, ttl_floor)
  if s.next <= now * 1000 then
    redis.call('DEL', key)
    return
  end
  local parts = { struct.pack(FORMAT, s.next, s.remainder) }
  for i = 1, #s.gaps do parts[i + 1] = struct.pack(FORMAT, s.gaps[i][1], s.gaps[i][2]) end
  local ttl = floor(s.next / 1000) + 1 + EXPIRY_MARGIN_MS - now
  redis.call('SET', key, table.concat(parts), 'PX', string.format('%.0f', max(ttl, ttl_floor)))
end

return {
  decode_limit = decode_limit, load = load, evaluate = evaluate, available = available, charge = charge, status = status, save = save,
  make_slow_path = function() return { adjust = adjust, release = release, releasable = releasable, usage = usage } end,
}
