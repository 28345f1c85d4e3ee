-- Read several rankings, or one member of each; each is one flat list of members and scores, whichever protocol is spoken.
-- KEYS the rankings; ARGV[1] the member, if only one is wanted. A value of another type is answered with nil.
local found = {}
for i = 1, #KEYS do
  local ranks
  if ARGV[1] then
    local score = redis.pcall('ZSCORE', KEYS[i], ARGV[1])
    ranks = type(score) == 'table' and score or score and { ARGV[1], score } or {}
  else
    ranks = redis.pcall('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES')
  end
  if ranks.err and not string.find(ranks.err, 'WRONGTYPE', 1, true) then error(ranks.err) end
  found[i] = not ranks.err and ranks
end
return found
