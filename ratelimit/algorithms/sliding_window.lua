-- The sliding window, twin of sliding_window.py, which explains the terms.
--
-- A state is one string of little-endian integers:
--   byte 1      the width of counts (4 or 7 bytes), plus 16 where the expiry leaves time for a carried overage
--   header      total, carried overage, its stamp, last stamp, last count, last overage
--   then        the older entries in the order in which they leave: stamp, count, overage
-- Stamps take 6 bytes (milliseconds since the epoch). While the last bucket is open, only the header is written.

local NARROW_HEAD, WIDE_HEAD = '<BI4I4I6I6I4I4', '<BI7I7I6I6I7I7'
local NARROW_ENTRY, WIDE_ENTRY = '<I6I4I4', '<I6I7I7'
local WIDE = 4294967296
local CARRY = 16
local NEVER = 9007199254740991

local pack, unpack_, byte, sub = struct.pack, struct.unpack, string.byte, string.sub
local min, max, floor, ceil = math.min, math.max, math.floor, math.ceil

-- The limit of a list of numbers as `codec.py` sends it.
local function decode_limit(numbers, kind)
  local limit, caller_capacity, burst, bucket_ms, window_ms = numbers[3], numbers[4], numbers[5], numbers[6], numbers[7]
  local capacity = limit + burst
  return {
    kind = kind, shadow = numbers[2] == 1,
    limit = limit, caller_capacity = caller_capacity, advertised_limit = limit < caller_capacity and limit or caller_capacity,
    burst = burst, capacity = capacity, bucket_ms = bucket_ms, window_ms = window_ms,
    wide = capacity >= WIDE, may_carry = burst > 0, tolerance = max(bucket_ms, ceil(window_ms / 64)),
    new_until = numbers[8],
  }
end

local function is_wide(s)
  return s.form % CARRY == 7
end

-- How entries are written in a state, and how many bytes one takes.
local function entry_of(s)
  if s.form % CARRY == 7 then return WIDE_ENTRY, 20 end
  return NARROW_ENTRY, 14
end

-- The state in `value`, or a new one where there is no value; without a last entry, its stamp is 0. There are just 16
-- fields, all set at once: a table that grows, or is larger, costs time.
local function load(_, value)
  local form = value and byte(value, 1) or 0
  local wide = form == 7 or form == 23
  local size = wide and 41 or 29
  local _, total, carried, carried_stamp, stamp, count, overage, older = 0, 0, 0, 0, 0, 0, 0, ''
  -- A value that something else has written under this key is ignored and overwritten.
  local good = (wide or form == 4 or form == 20) and #value >= size and #value < 65536 and (#value - size) % (wide and 20 or 14) == 0
  if good then
    _, total, carried, carried_stamp, stamp, count, overage = unpack_(wide and WIDE_HEAD or NARROW_HEAD, value)
    older = #value > size and sub(value, size + 1) or ''
  end
  return {
    form = good and form or 4, total = total, carried = carried, carried_stamp = carried_stamp,
    stamp = stamp, count = count, overage = overage, older = older, pos = 1, rewrite = not good, dirty = false, evaluated_for = false,
    now_total = 0, now_carried = 0, now_carried_stamp = 0, now_alive = false,
  }
end

-- The functions that most calls do not need. A call pays for each function it creates, so they are created on demand.
local function slow_path(lim)
  local kind = lim.kind
  kind.slow = kind.slow or kind.make_slow_path()
  return kind.slow
end

local function overage_lapses(lim, stamp)
  return stamp + 1 + 2 * lim.window_ms + lim.bucket_ms
end

-- Compute the window as it stands at `now` under `lim` into the fields now_…, and change nothing else.
local function evaluate(s, lim, now)
  if s.evaluated_for == lim then return end
  s.evaluated_for = lim
  local horizon = now + lim.tolerance
  if s.stamp >= horizon or s.carried_stamp >= horizon then slow_path(lim).bring_back(s, lim, now, horizon) end
  local total, carried, carried_stamp, alive, pos = s.total, s.carried, s.carried_stamp, s.stamp > 0, 1
  if alive then
    local oldest = now - lim.window_ms
    local format, size = entry_of(s)
    local older = s.older
    local bytes = #older
    while pos <= bytes do
      local stamp, count, overage = unpack_(format, older, pos)
      if stamp >= oldest then break end
      total, carried, carried_stamp, pos = total - count, overage, stamp, pos + size
    end
    if pos > bytes and s.stamp < oldest then
      total, carried, carried_stamp, alive = total - s.count, s.overage, s.stamp, false
    end
  end
  if carried > 0 and now >= overage_lapses(lim, carried_stamp) then carried = 0 end
  s.now_total, s.now_carried, s.now_carried_stamp, s.now_alive, s.pos = total, carried, carried_stamp, alive, pos
end

-- A comparison takes a fraction of the time of a call of math.min.
local function available(s, lim)
  local most, carried = lim.capacity, s.now_carried
  if carried > 0 then most = most - (carried < lim.burst and carried or lim.burst) end
  return (most < lim.caller_capacity and most or lim.caller_capacity) - s.now_total
end

local function charge(s, lim, now, cost)
  if (lim.wide or s.now_total + cost >= WIDE) and not is_wide(s) then
    slow_path(lim).widen(s)
    s.evaluated_for = false
    evaluate(s, lim, now)
  end
  local total, carried = s.now_total + cost, s.now_carried
  local overage = total - lim.limit + (carried < lim.burst and carried or lim.burst)
  if overage < 0 then overage = 0 end
  if s.pos > 1 then
    s.older, s.pos, s.rewrite = sub(s.older, s.pos), 1, true
  end
  if s.now_alive and s.stamp >= now then
    s.count, s.overage = s.count + cost, overage
  else
    if s.now_alive then
      s.older = s.older .. pack(entry_of(s), s.stamp, s.count, s.overage)
    end
    s.stamp, s.count, s.overage = floor(now / lim.bucket_ms) * lim.bucket_ms + lim.bucket_ms - 1, cost, overage
    s.rewrite = true
  end
  if (lim.may_carry or overage > 0) and s.form < CARRY then s.form, s.rewrite = s.form + CARRY, true end
  s.total, s.now_total, s.now_alive = total, total, true
  s.carried, s.carried_stamp = carried, s.now_carried_stamp
  s.dirty = lim
end

-- remaining, reset (ms) and the wait (ms) of a further `cost`, as of the last `evaluate`; and, where something remains, in
-- how many ms more does.
local function status(s, lim, now, cost)
  local remaining, reset, more = lim.advertised_limit - s.now_total, 0, 0
  if remaining < 0 then remaining = 0 end
  local ms = available(s, lim) >= cost and 0 or slow_path(lim).wait(s, lim, now, cost)
  if ms > 0 and ms < NEVER then
    reset = ms
  elseif remaining > 0 then
    if s.now_alive then
      reset = s.stamp + 1 + lim.window_ms - now
      more = s.pos < #s.older and unpack_('<I6', s.older, s.pos) + 1 + lim.window_ms - now or reset
    end
  else
    reset = slow_path(lim).until_one_remains(s, lim, now)
  end
  return remaining, reset, ms, more
end

-- Write the state back: the header alone while its bucket and its expiry stand, else all of it, always with an expiry.
local function save(key, s, now, ttl_floor)
  local lim = s.dirty
  local head = pack(is_wide(s) and WIDE_HEAD or NARROW_HEAD, s.form, s.total, s.carried, s.carried_stamp, s.stamp, s.count, s.overage)
  if not s.rewrite then
    redis.call('SETRANGE', key, '0', head)
    return
  end
  -- The margin covers a limit that changes meanwhile, and with it the width of the buckets.
  local ttl = s.stamp + 1 + lim.window_ms + 3 * (floor(lim.window_ms / 64) + 2) - now
  if s.form >= CARRY then ttl = ttl + lim.window_ms + lim.bucket_ms end
  redis.call('SET', key, head .. s.older, 'PX', max(ttl, ttl_floor))
end

local function make_slow_path()
  local function widen(s)
    local parts, format, size = {}, entry_of(s)
    s.form = s.form + 3
    for at = 1, #s.older, size do
      parts[#parts + 1] = pack(WIDE_ENTRY, unpack_(format, s.older, at))
    end
    s.older, s.pos, s.rewrite = table.concat(parts), 1, true
  end

  local function wait(s, lim, now, cost)
    if cost > lim.caller_capacity then return NEVER end
    local total, carried, lapses = s.now_total, s.now_carried, overage_lapses(lim, s.now_carried_stamp)
    local format, size = entry_of(s)
    local older, pos = s.older, s.pos
    local bytes = #older
    while pos <= bytes or (s.now_alive and pos <= bytes + 1) do
      local stamp, count, overage
      if pos <= bytes then
        stamp, count, overage = unpack_(format, older, pos)
        pos = pos + size
      else
        stamp, count, overage = s.stamp, s.count, s.overage
        pos = bytes + 2
      end
      local leave = stamp + 1 + lim.window_ms
      if carried > 0 and lapses <= leave then
        carried = 0
        if total + cost <= lim.caller_capacity then return lapses - now end
      end
      total, carried, lapses = total - count, overage, overage_lapses(lim, stamp)
      if total + cost <= min(lim.caller_capacity, lim.capacity - min(carried, lim.burst)) then return leave - now end
    end
    return lapses - now
  end

  local function until_one_remains(s, lim, now)
    if available(s, lim) < 1 then
      local ms = wait(s, lim, now, 1)
      return ms < NEVER and ms or 0
    end
    local total, format, size = s.now_total, entry_of(s)
    for at = s.pos, #s.older, size do
      local stamp, count = unpack_(format, s.older, at)
      total = total - count
      if total < lim.advertised_limit then return stamp + 1 + lim.window_ms - now end
    end
    return s.now_alive and s.stamp + 1 + lim.window_ms - now or 0
  end

  -- Count entries from beyond `horizon`, which a wrong clock wrote, in the current bucket.
  local function bring_back(s, lim, now, horizon)
    local stamp, parts, count, overage = floor(now / lim.bucket_ms) * lim.bucket_ms + lim.bucket_ms - 1, {}, 0, s.overage
    local format, size = entry_of(s)
    for at = 1, #s.older, size do
      local own_stamp, own_count = unpack_(format, s.older, at)
      if own_stamp < horizon then
        parts[#parts + 1] = sub(s.older, at, at + size - 1)
        stamp = max(stamp, own_stamp)
      else
        count = count + own_count
      end
    end
    if s.stamp >= horizon then
      s.stamp, s.count, s.overage = stamp, s.count + count, overage
    end
    s.older, s.pos = table.concat(parts), 1
    s.carried_stamp = min(s.carried_stamp, stamp)
    s.repaired, s.rewrite = true, true
  end

  -- The only write of a refused charge: of a state that a wrong clock left in the future.
  local function repair(s, lim)
    s.dirty = lim
  end

  -- The entries that have not left.
  local function entries(s)
    local list, format, size = {}, entry_of(s)
    for at = s.pos, #s.older, size do
      list[#list + 1] = { unpack_(format, s.older, at) }
    end
    if s.now_alive then list[#list + 1] = { s.stamp, s.count, s.overage } end
    return list
  end

  -- Make `list` the entries of the state.
  local function put_back(s, lim, list)
    local parts = {}
    for i = 1, #list - 1 do
      parts[i] = pack(entry_of(s), list[i][1], list[i][2], list[i][3])
    end
    s.stamp, s.count, s.overage = list[#list][1], list[#list][2], list[#list][3]
    s.older, s.pos, s.rewrite, s.dirty = table.concat(parts), 1, true, lim
    s.total, s.carried, s.carried_stamp = s.now_total, s.now_carried, s.now_carried_stamp
  end

  local function change(s, lim, list, at, delta)
    s.now_total = s.now_total + delta
    list[at][2] = list[at][2] + delta
    for i = at, #list do
      if list[i][3] > 0 then list[i][3] = max(0, list[i][3] + delta) end
    end
    if delta > 0 then
      local last = list[#list]
      last[3] = max(last[3], s.now_total - lim.limit + min(s.now_carried, lim.burst))
    end
  end

  -- Make the entry of a past instant, for units that were charged elsewhere; returns its index.
  local function insert(s, lim, now, list, at, before)
    local stamp = floor(at / lim.bucket_ms) * lim.bucket_ms + lim.bucket_ms - 1
    if stamp >= now then return nil end
    local place = before or #list + 1
    local overage = place > 1 and list[place - 1][3] or min(s.now_carried, lim.burst)
    table.insert(list, place, { stamp, 0, overage })
    if lim.wide and not is_wide(s) then s.form = s.form + 3 end
    if lim.may_carry and s.form < CARRY then s.form = s.form + CARRY end
    s.now_alive = true
    return place
  end

  local function adjust(s, lim, now, delta, at)
    if delta > 0 then delta = min(delta, NEVER - s.now_total) end
    local list, found = entries(s), nil
    for i, entry in ipairs(list) do
      if entry[1] >= at then
        found = i
        break
      end
    end
    if not found or list[found][1] - at >= lim.bucket_ms then
      if at < now - lim.window_ms then
        found = nil
      elseif delta > 0 then
        found = insert(s, lim, now, list, at, found)
      elseif not found and #list > 0 then
        found = #list -- The clock stepped back since, and the entry was brought back with it.
      end
    end
    if not found then
      if delta > 0 then charge(s, lim, now, delta) end
      return
    end
    if s.now_total + delta >= WIDE and not is_wide(s) then s.form = s.form + 3 end
    change(s, lim, list, found, max(delta, -list[found][2]))
    put_back(s, lim, list)
    if s.overage > 0 and s.form < CARRY then s.form = s.form + CARRY end
  end

  local function release(s, lim, _, amount)
    local list = entries(s)
    for i = #list, 1, -1 do
      local part = min(list[i][2], amount)
      change(s, lim, list, i, -part)
      amount = amount - part
    end
    if #list > 0 then put_back(s, lim, list) end
  end

  local function releasable(s)
    return s.now_total
  end

  local function usage(s, lim, now)
    return s.now_total, s.now_alive and s.stamp + 1 + lim.window_ms - now or 0, 0
  end

  return {
    widen = widen, wait = wait, until_one_remains = until_one_remains, bring_back = bring_back, repair = repair,
    adjust = adjust, release = release, releasable = releasable, usage = usage,
  }
end

return {
  decode_limit = decode_limit, load = load, evaluate = evaluate, available = available, charge = charge, status = status, save = save,
  make_slow_path = make_slow_path,
}
