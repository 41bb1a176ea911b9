-- KEYS[1]: state of a GCRA bucket, "microseconds remainder": the theoretical arrival
--   time, whose fraction is remainder/rate of a microsecond.
-- ARGV: rate, then as whole and remainder the worth of the permits asked for and of
--   the capacity.
-- All numbers are whole and below 2^53, hence exact.
-- Returns: 1 if granted, now, arrival time in whole and remainder.
local rate = tonumber(ARGV[1])
local cost, cost_rest = tonumber(ARGV[2]), tonumber(ARGV[3])
local room, room_rest = tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local at, rest = now, 0
local state = redis.call('GET', KEYS[1])
if state then
  local a, r = string.match(state, '^(%d+) (%d+)$')
  a, r = tonumber(a), tonumber(r)
  if r >= rate then a, r = a + 1, 0 end -- the rate was another one
  if a >= now then at, rest = a, r end
end

-- Further ahead than a whole bucket it can be only if the clock was set back or the
-- limit lowered.
local last, last_rest = now + room, room_rest
if at > last or (at == last and rest > last_rest) then
  at, rest = last, last_rest
end

local new, new_rest = at + cost, rest + cost_rest
if new_rest >= rate then new, new_rest = new + 1, new_rest - rate end
if new > last or (new == last and new_rest > last_rest) then
  return {0, now, at, rest}
end
if cost > 0 or cost_rest > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', new, new_rest),
    'PX', math.ceil((new - now) / 1000) + 1)
end
return {1, now, new, new_rest}
