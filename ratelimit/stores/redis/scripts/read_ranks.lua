-- Read several rankings; each is one flat list of members and scores, whichever protocol is spoken.
-- KEYS the rankings.
local found = {}
for i = 1, #KEYS do
  found[i] = redis.call('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES')
end
return found
