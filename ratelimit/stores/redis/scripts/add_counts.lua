-- Add to the counts of several spans of time, each a hash that expires.
-- KEYS the spans; ARGV[1] the number of spans, then for each its milliseconds to live, then fields and what is added to each.
local spans = tonumber(ARGV[1])
for i = 1, spans do
  for j = spans + 2, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[i], ARGV[j], ARGV[j + 1])
  end
  redis.call('PEXPIRE', KEYS[i], ARGV[i + 1])
end
return #KEYS
