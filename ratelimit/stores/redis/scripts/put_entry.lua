-- Writes or removes one entry of a shared map, and gives the map a new version.
--
-- KEYS[1]   the map, a hash without an expiry: its entries say how long they hold
-- ARGV      the name of the entry, its value ('' removes it), the field that holds the version

local time = redis.call('TIME')
local version = time[1] .. string.format('%06d', time[2])
local done = redis.pcall('HSET', KEYS[1], ARGV[3], version)
if type(done) == 'table' then
  -- A value of another type, which something else has written, is deleted; any other error is raised.
  if not string.find(done.err, 'WRONGTYPE', 1, true) then error(done.err) end
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], ARGV[3], version)
end
if ARGV[2] == '' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
