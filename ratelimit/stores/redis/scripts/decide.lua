-- Decides a batch of requests: each is charged at all of its limits or at none.
--
-- KEYS      the keys of all charges, each once, and last the key under which the reply is kept (`lookup`: that one alone)
-- ARGV[1]   msgpack {now, ttl_floor, limits, requests, number}
--   now        ms since the epoch, or -1: the server's TIME, read once
--   ttl_floor  ms below which no expiry is set (an injected clock does not run with the server's)
--   limits     {{kind, shadow (0 or 1), limit, caller_capacity, …numbers of that kind}, …}
--   requests   one flat list: operation, number of charges, from ACQUIRE on also holder and instant (ms, 0: now),
--              then for each charge: index of its limit, of its key, cost. Where the index of the limit is negative, this is
--              another window of the charge before it. It counts the same units, refuses nothing, and has no place in the reply.
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
-- ARGV[2] = 'rehearse': the call replies as it would, and writes nothing.
-- A shadow limit is charged where the request is admitted and the limit has room; it refuses nothing.
-- A key that does not exist, of a window whose period is new, begins with what the fullest other window of its charge holds.
--
-- Two ways, with the same replies and the same states. The usual way takes charges of sliding windows, of each of which
-- something remains afterwards: one pass, in one flat list of numbers, without a table or function for any state. All else goes the general
-- way, by the functions of each kind, request by request: where one request of a batch is refused, the others go on
-- the usual way, unless they charge the same key as the limit that refused it.

local CHARGE, PEEK, USAGE, ACQUIRE, ADJUST, RELEASE, RENEW = 0, 1, 2, 3, 4, 5, 6
local NEVER, WIDE = 9007199254740991, 4294967296
local REPLY_TTL_MS, CORRECTION_TTL_MS, TOMBSTONE_TTL_MS = '30000', '60000', '60000'
local WINDOW = 1

local redis = redis
if ARGV[2] == 'rehearse' then
  local server, is_write = redis, { DEL = true, PEXPIRE = true, SET = true, SETRANGE = true, ZADD = true, ZREM = true, ZREMRANGEBYSCORE = true }
  redis = { pcall = server.pcall, call = function(name, ...) return not is_write[name] and server.call(name, ...) end }
end

local now, ttl_floor, limits, requests, number = unpack(cmsgpack.unpack(ARGV[1]))
if now < 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
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
-- A table that grows is copied again and again: these three begin with the places that three charges take.
local reply, n = { number, now, nil, nil, nil, nil, nil, nil, nil, nil, nil }, 2

-- By limit: below which total the usual way charges it, or false.
local most = { nil, nil, nil }
for i = 1, #limits do
  local limit = limits[i]
  most[i] = limit[1] == WINDOW and limit[2] == 0 and limit[3] + limit[5] < WIDE
    and (limit[3] < limit[4] and limit[3] or limit[4])
end

-- The states that the usual way has charged, FIELDS places for each key: see sliding_window.lua for the terms.
--   0 index of its limit, 1 total (false: this key has no state here), 2 stamp, 3 count, 4 stamp of the carried overage,
--   5 older entries (false: they stay as they are, and the header alone is written), 6 form, 7 stamp of the entry that
--   leaves first, 8 where in `requests` the request begins that has loaded it (0: another way did). Its last bucket is open, and no overage is in it.
local FIELDS = 9
local flat = {
  nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil,
  nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil,
}
-- The states of the general way, by key. No key has a state in both.
local states, kinds = {}, nil

local pack, unpack_, sub = struct.pack, struct.unpack, string.sub
local at, size, decide, is_correcting = 1, #requests, nil, false
while at <= size do
  local operation, first, before = requests[at], at + 2, n
  local last = first - 1 + 3 * requests[at + 1]
  local failed = operation ~= CHARGE and first
  if not failed then
    for i = first, last, 3 do
      local l, k, cost = requests[i], requests[i + 1], requests[i + 2]
      local o, top = k * FIELDS, most[l]
      local total, stamp, leaves = flat[o + 1], nil, nil
      if not top or states[k] then failed = i break end
      local limit = limits[l]
      if total then
        total = total + cost
        if flat[o] ~= l or total >= top then failed = i break end
        flat[o + 1], flat[o + 3] = total, flat[o + 3] + cost
        stamp, leaves = flat[o + 2], flat[o + 7]
      else
        local value, bucket_ms = values[k], limit[6]
        if not value then
          total, stamp = cost, now - now % bucket_ms + bucket_ms - 1
          if total >= top then failed = i break end
          leaves = stamp
          flat[o], flat[o + 1], flat[o + 2], flat[o + 3], flat[o + 4], flat[o + 5], flat[o + 6], flat[o + 7], flat[o + 8] =
            l, total, stamp, cost, 0, '', limit[5] > 0 and 20 or 4, stamp, at
        else
          local bytes = #value
          if bytes < 29 or bytes > 65535 or (bytes - 29) % 14 ~= 0 then failed = i break end
          local form, all, carried, carried_stamp, own_stamp, count, overage = unpack_('<BI4I4I6I6I4I4', value)
          if (form ~= 4 and form ~= 20) or own_stamp == 0 or own_stamp >= now + bucket_ms or carried_stamp > own_stamp then
            failed = i break
          end
          local pos, oldest, older = 30, now - limit[7], false
          total, stamp = all, own_stamp
          while pos <= bytes do
            local its_stamp, its_count, its_overage = unpack_('<I6I4I4', value, pos)
            if its_stamp >= oldest then
              leaves = its_stamp
              break
            end
            total, carried, carried_stamp, pos = total - its_count, its_overage, its_stamp, pos + 14
          end
          if stamp < now then -- Another bucket is opened.
            if pos > bytes and stamp < oldest then
              total, carried, carried_stamp, older = total - count, overage, stamp, ''
            else
              leaves = leaves or stamp
              older = (pos <= bytes and sub(value, pos) or '') .. pack('<I6I4I4', stamp, count, overage)
            end
            stamp, count = now - now % bucket_ms + bucket_ms - 1, 0
          elseif pos > 30 then
            older = sub(value, pos)
          end
          total = total + cost
          if carried > 0 or total >= top then failed = i break end
          if limit[5] > 0 and form == 4 then form, older = 20, older or sub(value, pos) end
          leaves = leaves or stamp
          flat[o], flat[o + 1], flat[o + 2], flat[o + 3], flat[o + 4], flat[o + 5], flat[o + 6], flat[o + 7], flat[o + 8] =
            l, total, stamp, count + cost, carried_stamp, older, form, leaves, at
        end
      end
      local gone = 1 + limit[7] - now
      reply[n + 1], reply[n + 2], reply[n + 3] = top - total, stamp + gone, -(leaves + gone)
      n = n + 3
    end
  end
  if failed then
    -- Take back what the usual way has charged for this request.
    for i = first, failed - 1, 3 do
      local o, cost = requests[i + 1] * FIELDS, requests[i + 2]
      if flat[o + 8] == at then
        flat[o + 1] = false
      else
        flat[o + 1], flat[o + 3] = flat[o + 1] - cost, flat[o + 3] - cost
      end
    end
    local holder, instant = 0, 0
    if operation >= ACQUIRE then
      holder, instant, first, last = requests[at + 2], requests[at + 3], at + 4, last + 2
    end
    if not decide then
      -- The general way. A call pays for each function it creates, so these are made where a request needs them.
      local KINDS = {} -- codec.py puts the functions of each kind here.
      local limits_of, created, has_copies = {}, {}, nil
      kinds = {}

      local function limit_of(index)
        local numbers = limits[index]
        local kind = created[numbers[1]]
        if not kind then
          kind = KINDS[numbers[1]]()
          created[numbers[1]] = kind
        end
        limits_of[index] = kind.decode_limit(numbers, kind)
        return limits_of[index]
      end

      -- The state of the general way for one of the usual way, which gives it up.
      local function take_over(k, lim)
        local o, value = k * FIELDS, values[k]
        local total, stamp, older = flat[o + 1], flat[o + 2], flat[o + 5]
        flat[o + 1] = false
        return {
          form = flat[o + 6], total = total, carried = 0, carried_stamp = flat[o + 4], stamp = stamp, count = flat[o + 3], overage = 0,
          older = older or string.sub(value, 30), pos = 1, rewrite = older and true, dirty = lim, evaluated_for = lim,
          now_total = total, now_carried = 0, now_carried_stamp = flat[o + 4], now_alive = true,
        }
      end

      -- Forget the copies that were only looked at: what they were made of may change in the next request.
      local function forget_copies()
        for k, s in pairs(states) do
          if s.is_copy then
            if s.dirty then s.is_copy = nil else states[k] = nil end
          end
        end
        has_copies = nil
      end

      -- Whether the period of the charge at index `i` is new.
      local function is_new(i)
        local l = requests[i] < 0 and -requests[i] or requests[i]
        local lim = limits_of[l] or limit_of(l)
        return lim.new_until and now < lim.new_until
      end

      -- What is kept under a key, as a state of the general way; a state that was only looked at does not count.
      local function kept_state(k, kind)
        local s = states[k]
        if not s and flat[k * FIELDS + 1] then
          local own = flat[k * FIELDS]
          s = take_over(k, limits_of[own] or limit_of(own))
          states[k], kinds[k] = s, kind
        end
        return s and s.dirty and s or values[k] and kind.load(KEYS[k], values[k])
      end

      -- A copy of what that other window of the charge holds which fills `lim` most, or nil.
      local function begin_with_others(i, last, lim)
        local from, found, most_used = i, nil, 0
        while requests[from] < 0 do from = from - 3 end
        for j = from, last, 3 do
          if j > from and requests[j] > 0 then break end
          local other = j ~= i and kept_state(requests[j + 1], lim.kind)
          if other then
            local copy = {}
            for name, value in pairs(other) do copy[name] = value end
            local l = requests[j] < 0 and -requests[j] or requests[j]
            copy.evaluated_for = false
            lim.kind.evaluate(copy, limits_of[l] or limit_of(l), now)
            copy.total, copy.carried, copy.carried_stamp = copy.now_total, copy.now_carried, copy.now_carried_stamp
            copy.older, copy.pos = string.sub(copy.older, copy.pos), 1
            copy.rewrite, copy.dirty, copy.evaluated_for, copy.repaired, copy.is_copy = true, false, false, nil, true
            lim.kind.evaluate(copy, lim, now)
            if copy.now_total > most_used then found, most_used = copy, copy.now_total end
          end
        end
        has_copies = has_copies or found
        return found
      end

      -- The limit, the state as it stands under it, and the cost of the charge at index `i` of `requests`, whose request
      -- ends at index `last`.
      local function evaluated(i, last)
        local l, k = requests[i], requests[i + 1]
        local lim = limits_of[l < 0 and -l or l] or limit_of(l < 0 and -l or l)
        local s = states[k]
        if not s then
          if flat[k * FIELDS + 1] then
            local own = flat[k * FIELDS]
            s = take_over(k, limits_of[own] or limit_of(own))
          else
            if not values[k] and is_new(i) then s = begin_with_others(i, last, lim) end
            s = s or lim.kind.load(KEYS[k], values[k])
          end
          states[k], kinds[k] = s, lim.kind
        end
        lim.kind.evaluate(s, lim, now)
        return lim, s, requests[i + 2]
      end

      local function charge(first, last, operation, holder)
        local admitted, is_made = operation ~= PEEK, false
        for i = first, last, 3 do
          if requests[i] > 0 or is_new(i) then
            local lim, s, cost = evaluated(i, last)
            if requests[i] > 0 and not lim.shadow and lim.kind.available(s, lim) < cost then admitted = false end
          end
        end
        for i = first, last, 3 do
          local lim, s, cost = limits_of[requests[i]], states[requests[i + 1]], requests[i + 2]
          if lim then
            local kind, remaining, reset, wait, more = lim.kind
            if s.evaluated_for ~= lim then kind.evaluate(s, lim, now) end
            is_made = admitted and kind.available(s, lim) >= cost
            if is_made then
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
          elseif is_made then
            lim, s = evaluated(i, last)
            lim.kind.charge(s, lim, now, cost < NEVER - s.now_total and cost or NEVER - s.now_total)
          end
        end
      end

      -- Give the states of a request back to the usual way, where it can go on with them.
      local function hand_back(first, last)
        for i = first, last, 3 do
          local l, k = requests[i], requests[i + 1]
          local lim, s, total = limits_of[l], states[k], most[l] -- Another window has no such limit.
          local may_go = total and s and s.evaluated_for == lim and not s.repaired and s.form % 16 == 4 and s.now_carried == 0
          if may_go and s.now_total + 1 < total then
            local o = k * FIELDS
            if not s.dirty then
              states[k] = nil
            elseif s.dirty == lim and s.overage == 0 and s.stamp >= now and s.pos == 1 then
              local older = s.older
              flat[o], flat[o + 1], flat[o + 2], flat[o + 3], flat[o + 4], flat[o + 5], flat[o + 6], flat[o + 7], flat[o + 8] =
                l, s.total, s.stamp, s.count, s.carried_stamp, s.rewrite and older, s.form,
                #older > 0 and struct.unpack('<I6', older) or s.stamp, 0
              states[k] = nil
            end
          end
        end
      end

      -- A call pays for each function it creates: the operations that are rarer than a charge are created on demand too.
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
            if is_new(i) then evaluated(i, last) end -- With what the others hold before this request.
          end
          for i = first, last, 3 do
            local lim, s, cost = evaluated(i, last)
            local slow, is_other = slow_path(lim.kind), requests[i] < 0
            if operation == ADJUST then
              slow.adjust(s, lim, now, cost, at == 0 and now or at, holder)
            elseif operation == RELEASE then
              slow.release(s, lim, now, is_other and s.now_total < -cost and s.now_total or -cost, holder)
            elseif operation == RENEW then
              slow.renew(s, lim, now, holder)
            end
            if is_other then
              -- It has no place in the reply.
            elseif operation == USAGE then
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
            local lim, s, cost = evaluated(i, last)
            if requests[i] > 0 and slow_path(lim.kind).releasable(s) < -cost then
              for j = first, last, 3 do
                local other, state = evaluated(j, last)
                local remaining, reset = other.kind.status(state, other, now, 1)
                if requests[j] > 0 then answer(remaining, reset, NEVER) end
              end
              return false
            end
          end
          return true
        end

        return { amend = amend, is_releasable = is_releasable }
      end

      local amending

      decide = function(operation, first, last, holder, instant)
        if operation <= PEEK or operation == ACQUIRE then
          charge(first, last, operation, holder)
          hand_back(first, last)
        else
          amending = amending or make_amending()
          if operation ~= RELEASE or amending.is_releasable(first, last) then
            amending.amend(first, last, operation, holder, instant)
          end
        end
        if has_copies then forget_copies() end
      end
    end
    n = before
    is_correcting = is_correcting or operation > ACQUIRE
    decide(operation, first, last, holder, instant)
  end
  at = last + 1
end

local packed, changed, call = cmsgpack.pack(reply), false, redis.call
for k = 1, #KEYS do
  local o = k * FIELDS
  local total = flat[o + 1]
  if total then
    local limit, stamp, older, form = limits[flat[o]], flat[o + 2], flat[o + 5], flat[o + 6]
    local head = pack('<BI4I4I6I6I4I4', form, total, 0, flat[o + 4], stamp, flat[o + 3], 0)
    if older then
      local window_ms = limit[7]
      local ttl = stamp + 1 + window_ms + 3 * ((window_ms - window_ms % 64) / 64 + 2) - now
      if form == 20 then ttl = ttl + window_ms + limit[6] end
      call('SET', KEYS[k], head .. older, 'PX', ttl > ttl_floor and ttl or ttl_floor)
    else
      call('SETRANGE', KEYS[k], '0', head)
    end
    changed = true
  end
end
if decide then
  for k, s in pairs(states) do
    if s.dirty then
      kinds[k].save(KEYS[k], s, now, ttl_floor)
      changed = true
    end
  end
end
-- A correction without an effect may have one later. A refused charge that was sent twice is looked up by its sender.
-- A correction reports what may be thousands of units, and is sent again where its reply is not kept any more.
if changed or is_correcting then
  keep_reply('SET', reply_key, packed, 'PX', is_correcting and CORRECTION_TTL_MS or REPLY_TTL_MS)
end
return packed
