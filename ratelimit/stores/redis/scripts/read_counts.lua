-- Read the counts of several spans of time; each is one flat list of names and numbers, whichever protocol is spoken.
-- KEYS the spans.
local found = {}
for i = 1, #KEYS do
  found[i] = redis.call('HGETALL', KEYS[i])
end
return found
