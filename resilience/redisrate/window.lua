-- KEYS[1]: state of a fixed window, "start used", start in microseconds.
-- ARGV: rate, length of a window in microseconds, permits asked for.
-- Returns: 1 if granted, now, start of the window, permits used in it.
local rate, per, n = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local start, used = now - now % per, 0
local state = redis.call('GET', KEYS[1])
if state then
  local s, u = string.match(state, '^(%d+) (%d+)$')
  s, u = tonumber(s), tonumber(u)
  if s == start then used = u end
end

if used + n > rate then
  return {0, now, start, used}
end
used = used + n
if n > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', start, used),
    'PX', math.ceil((start + per - now) / 1000) + 1)
end
return {1, now, start, used}
