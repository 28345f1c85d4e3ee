-- Change several rankings, each a sorted set that keeps its largest members and expires.
-- KEYS the rankings; ARGV[1] how many members each keeps, ARGV[2] its milliseconds to live, ARGV[3] the command that changes a
-- member (ZINCRBY or ZADD), then for each ranking the number of its changes, and for each change its member and its number.
local at = 4
for i = 1, #KEYS do
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
