-- Writes or removes one entry of a shared map, and gives the map a new version.
--
-- KEYS[1]   the map, a hash without an expiry: its entries say how long they hold
-- ARGV      the name of the entry, its value ('' removes it), the field that holds the version

local time = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[3], time[1] .. string.format('%06d', time[2]))
if ARGV[2] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
