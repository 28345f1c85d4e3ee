-- Add to the counts of several spans of time, each a hash that expires.
-- KEYS the spans; ARGV[1] the number of spans, then for each its milliseconds to live, then fields and what is added to each.

-- What something else has written there, and is no number or no hash, is dropped.
local function add(key, field, number)
  local done = redis.pcall('HINCRBY', key, field, number)
  if type(done) ~= 'table' then return end
  if string.find(done.err, 'WRONGTYPE', 1, true) then
    redis.call('DEL', key)
  elseif string.find(done.err, 'integer', 1, true) or string.find(done.err, 'overflow', 1, true) then
    redis.call('HDEL', key, field)
  else
    error(done.err)
  end
  redis.call('HINCRBY', key, field, number)
end

local spans = tonumber(ARGV[1])
for i = 1, spans do
  for j = spans + 2, #ARGV, 2 do
    add(KEYS[i], ARGV[j], ARGV[j + 1])
  end
  redis.call('PEXPIRE', KEYS[i], ARGV[i + 1])
end
return #KEYS
