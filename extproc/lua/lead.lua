-- Take or keep the lead of a model for a while.
-- KEYS  1 leader
-- ARGV  1 now in ms, '' for the server's clock  2 who asks  3 for how many ms  4 key lifetime in ms
-- Returns the number of the term, 0 while another leads
local now = now_ms(ARGV[1])
local holder, term, until_ms = unpack(redis.call('HMGET', KEYS[1], 'holder', 'term', 'until_ms'))
local runs = until_ms and tonumber(until_ms) > now
if runs and holder ~= ARGV[2] then return 0 end
-- A term is never numbered below the clock: terms go on rising where the server has lost its data.
if not runs then term = string.format('%.0f', math.max((tonumber(term or 0)) + 1, now)) end
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'term', term, 'until_ms', string.format('%.0f', now + ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return tonumber(term)
