-- KEYS[1]: a hash of owner, print and, when the call is over, record.
-- ARGV: owner, fingerprint, lease in milliseconds.
-- Returns: 1 if claimed; else 0, the fingerprint and the record or false.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'print', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {1}
end
local found = redis.call('HMGET', KEYS[1], 'print', 'record')
return {0, found[1], found[2]}
