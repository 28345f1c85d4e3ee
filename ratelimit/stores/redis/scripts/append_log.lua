-- Append to a stream that holds about so many entries and expires.
-- KEYS[1] the stream; ARGV[1] how many entries it keeps, ARGV[2] its milliseconds to live, then the values.
for i = 3, #ARGV do
  local done = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'v', ARGV[i])
  if done.err then
    -- A value of another type, or a stream without a further id, which something else has written, is deleted.
    if not string.find(done.err, 'WRONGTYPE', 1, true) and not string.find(done.err, ' ID', 1, true) then error(done.err) end
    redis.call('DEL', KEYS[1])
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'v', ARGV[i])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return #ARGV - 2
