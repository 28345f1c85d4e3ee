-- Registers a worker for some time, and returns the number of workers that are registered now.
--
-- KEYS[1]   the registry, a sorted set: workers, scored with the millisecond in which they expire
-- ARGV      the worker, the milliseconds for which it stays registered

local HOUR = 3600000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- No worker registers for longer than an hour: what something else has written there would count as a worker for ever.
local bad = redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now + math.max(HOUR, ARGV[2])), '+inf')
if type(bad) == 'table' then
  if not string.find(bad.err, 'WRONGTYPE', 1, true) then error(bad.err) end
  redis.call('DEL', KEYS[1])
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZCARD', KEYS[1])
