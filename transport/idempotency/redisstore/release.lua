-- ARGV: owner.
local found = redis.call('HMGET', KEYS[1], 'owner', 'record')
if found[1] == ARGV[1] and not found[2] then redis.call('DEL', KEYS[1]) end
return 1
