-- Read a model's whole state at one instant; change nothing.
-- KEYS  1 entitlements  2 pools  3 leases  4 settled  5 estimates  6 shares  7 waiters
-- ARGV  1 now in ms, '' for the server's clock  then the fields of the estimates wanted
-- Returns now in ms, number of leases, then flat lists of field and value (entitlements, pools, settled, shares), the
--       records of those that wait, and the wanted estimates in order (a missing one is false)
local wanted = {}
for i = 2, #ARGV do wanted[i - 1] = redis.call('HGET', KEYS[5], ARGV[i]) end
return { now_ms(ARGV[1]), redis.call('HLEN', KEYS[3]), redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]),
         redis.call('HGETALL', KEYS[4]), redis.call('HGETALL', KEYS[6]), redis.call('HVALS', KEYS[7]), wanted }
