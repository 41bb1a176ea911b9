-- ARGV: owner, milliseconds, and a record or nothing to prolong the claim.
-- Returns: 1, or 0 if the claim is lost.
local found = redis.call('HMGET', KEYS[1], 'owner', 'record')
if found[1] ~= ARGV[1] or (ARGV[3] == '' and found[2]) then return 0 end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'record', ARGV[3]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
