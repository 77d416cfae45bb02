-- Move the deadlines of leases whose requests are still running; a lease that is gone stays gone.
-- KEYS  1 leases  2 deadlines
-- ARGV  1 now in ms, '' for the server's clock  2 lease lifetime in ms  then the leases
-- Returns how many were renewed
local deadline, renewed = now_ms(ARGV[1]) + tonumber(ARGV[2]), 0
for i = 3, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[2], deadline, ARGV[i])
    renewed = renewed + 1
  end
end
return renewed
