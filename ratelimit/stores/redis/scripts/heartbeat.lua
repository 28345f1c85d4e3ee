-- Registers a worker for some time, and returns the number of workers that are registered now.
--
-- KEYS[1]   the registry, a sorted set: workers, scored with the millisecond in which they expire
-- ARGV      the worker, the milliseconds for which it stays registered

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZCARD', KEYS[1])
