-- Read the counts of several spans of time; each is one flat list of names and numbers, whichever protocol is spoken.
-- KEYS the spans. A value of another type is answered with nil.
local found = {}
for i = 1, #KEYS do
  local fields = redis.pcall('HGETALL', KEYS[i])
  if fields.err and not string.find(fields.err, 'WRONGTYPE', 1, true) then error(fields.err) end
  found[i] = not fields.err and fields
end
return found
