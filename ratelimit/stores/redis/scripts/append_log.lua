-- Append to a stream that holds about so many entries and expires.
-- KEYS[1] the stream; ARGV[1] how many entries it keeps, ARGV[2] its milliseconds to live, then the values.
for i = 3, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'v', ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return #ARGV - 2
