-- Set a model's shares, if the term in which they were found is still the newest and has not run out.
-- KEYS  1 leader  2 shares
-- ARGV  1 now in ms, '' for the server's clock  2 term  3 key lifetime in ms  4 fields to drop, each ended by a newline
--       5 fields to set, each followed by a tab, its record and a newline: thousands of arguments would cost the
--       client more than this costs the server
-- Fields and records (integers with spaces between):
--   an entitlement -> weight in thousandths, cap and share (tokens/s, KV tokens, slots each), debt in millionths,
--                     tokens asked for and served until then, both rates in thousandths
--   "pool NAME"    -> live servers, shares of elastic (three units), of surplus (KV tokens, slots), desired servers
--   "history NAME" -> MS:SERVERS, several      "tick at" -> ms
-- Returns 1 where they took effect, else 0
local STRIDE = 4000  -- arguments of a call: unpack may put 8,000 on Lua's stack
local term, until_ms = unpack(redis.call('HMGET', KEYS[1], 'term', 'until_ms'))
if term ~= ARGV[2] or tonumber(until_ms) <= now_ms(ARGV[1]) then return 0 end

local function each(command, text, separators)
  local batch, n = {}, 0
  for part in string.gmatch(text, separators) do
    n = n + 1
    batch[n] = part
    if n == STRIDE then
      redis.call(command, KEYS[2], unpack(batch, 1, n))
      n = 0
    end
  end
  if n > 0 then redis.call(command, KEYS[2], unpack(batch, 1, n)) end
end

each('HDEL', ARGV[4], '[^\n]+')
each('HSET', ARGV[5], '[^\t\n]+')
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
