-- List leases past their deadline, oldest first; they are then settled like any other.
-- KEYS  1 leases  2 deadlines
-- ARGV  1 now in ms, '' for the server's clock  2 the most to list
-- Returns a flat list, 2 a lease: lease, its record. A deadline whose lease is gone is dropped.
local answer = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms(ARGV[1]), 'LIMIT', 0, ARGV[2])) do
  local record = redis.call('HGET', KEYS[1], id)
  if record then
    answer[#answer + 1], answer[#answer + 2] = id, record
  else
    redis.call('ZREM', KEYS[2], id)
  end
end
return answer
