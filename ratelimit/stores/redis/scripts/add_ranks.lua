-- Change several rankings, each a sorted set that keeps its largest members and expires.
-- KEYS the rankings; ARGV[1] how many members each keeps, ARGV[2] its milliseconds to live, ARGV[3] the command that changes a
-- member (ZINCRBY or ZADD), then for each ranking the number of its changes, and for each change its member and its number.

-- No caller has used more than this: what something else has written there, and would stay the largest for ever, is dropped.
local MOST = '(9223372036854775807'
local at = 4
for i = 1, #KEYS do
  local bad = redis.pcall('ZREMRANGEBYSCORE', KEYS[i], MOST, '+inf')
  if type(bad) == 'table' then
    if not string.find(bad.err, 'WRONGTYPE', 1, true) then error(bad.err) end
    redis.call('DEL', KEYS[i])
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', '(0')
  local changes = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, changes do
    redis.call(ARGV[3], KEYS[i], ARGV[at + 1], ARGV[at])
    at = at + 2
  end
  redis.call('ZREMRANGEBYRANK', KEYS[i], 0, -1 - ARGV[1])
  redis.call('PEXPIRE', KEYS[i], ARGV[2])
end
return #KEYS
