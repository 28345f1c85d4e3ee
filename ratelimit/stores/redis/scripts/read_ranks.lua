-- Read several rankings, or one member of each; each is one flat list of members and scores, whichever protocol is spoken.
-- KEYS the rankings; ARGV[1] the member, if only one is wanted.
local found = {}
for i = 1, #KEYS do
  if ARGV[1] then
    local score = redis.call('ZSCORE', KEYS[i], ARGV[1])
    found[i] = score and {ARGV[1], score} or {}
  else
    found[i] = redis.call('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES')
  end
end
return found
