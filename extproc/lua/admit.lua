-- Decide a batch of requests of one model, after those that wait: each gets its whole lease or nothing. Asked again for
-- a lease that is held, because Envoy tried a second sidecar, it answers the same and holds nothing more.
-- What a class must leave free for others is the table in docs/admission.md.
-- KEYS  1 entitlements  2 pools  3 leases  4 deadlines  5 uses  6 borrowed  7 unmet  8 queue  9 waiters  10 shares
-- ARGV  1 now in ms, '' for the server's clock  2 lease lifetime in ms  3 key lifetime in ms  4 how long a refused
--       request counts as demand after it may come again, in ms  5 most that may wait  6 number of pools
--       per pool 20: name, servers, then of one server: kv, slots, rate (tokens/s); rate set aside, depth;
--                    promised to tier 0: kv, slots; to tiers 1 and 2: kv, slots, rate, depth each; head-room: kv,
--                    slots; 1 where spot may borrow
--       per request 19: lease, entitlement, fingerprint, channel, order (see member_of), pool names with commas
--                    between, tier, base
--                    rate, base kv, base slots, base depth, cap rate, cap kv, cap slots, excess depth, tokens, kv,
--                    ms it may wait, most of its entitlement that may wait
-- Returns a flat list, 8 a request: outcome (0 admitted, 1 tokens/s, 2 kv, 3 slots, 4 pool, 5 no server, 6 waits),
--       pool number, 1 where it may be taken back, retry ms, slots left, ms to the next slot, tokens left, ms until the
--       buckets are full; then two: how many wait, ms until the first of them may have its tokens
-- Publishes to a waiter's channel "granted LEASE" and its 8 values, to a borrower's "taken LEASE".

local again = false  -- whether the queue is to be served once more

-- One that may wait goes through the queue, so that none overtakes those of its entitlement that are before it.
local function ask(r, texts)
  local queued = waiting > 0 and waiter(r.lease)
  if queued and r.wait_ms > 0 and r.pools[1] then  -- asked again, perhaps by another sidecar: it is the one to be told
    r.arrival = queued.arrival
    note_waiter(r, texts)
    return WAITS, 0, 0, 0
  end
  if queued and queued.channel ~= r.channel then return POOL, 0, 0, 1000 end  -- it waits in another's hands by now
  if queued then leave(queued) end
  local joins = r.wait_ms > 0 and r.pools[1] and blocked[r.name] and not is_promised(r)
  local outcome, number, borrowed, retry = WAITS, 0, 0, 0
  if not joins then outcome, number, borrowed, retry = decide(r) end
  local known = queued or forget(r)
  if not known then count_asked(r) end
  if outcome == OK then return outcome, number, borrowed, retry end
  if r.wait_ms > 0 and r.pools[1] and outcome ~= NO_SERVER and enqueue(r, texts) then
    if outcome == TOKENS then soonest_tokens = math.min(soonest_tokens, retry) end
    again = again or joins and string.byte(r.order) ~= 110  -- it may go before those that block it
    blocked[r.name] = true
    return WAITS, 0, 0, retry
  end
  if joins then outcome, retry = POOL, until_released(entitlement(r)[E.hold_ms], 1, 1) end
  remember(r, retry)
  return outcome, number, borrowed, retry
end

serve_queue()
local answer = {}
while position < #ARGV do
  local texts = {}
  for i = 1, REQUEST_FIELDS do texts[i] = ARGV[position + i] end
  position = position + REQUEST_FIELDS
  local r = request(function(i) return texts[i] end)
  local outcome, number, borrowed, retry = ask(r, table.concat(texts, ' '))
  for _, value in ipairs(answer_of(r, outcome, number, borrowed, retry)) do answer[#answer + 1] = value end
end
if again then serve_queue() end  -- who is granted is told like all who waited

for name, values in pairs(records) do
  if values then redis.call('HSET', KEYS[1], name, packed(values)) end
end
for _, pool in ipairs(pools) do redis.call('HSET', KEYS[2], pool.name, packed(pool.record)) end
for field, values in pairs(uses) do
  local text = values[1] + values[2] > 0 and packed(values)  -- what holds nothing has no record
  if not text and uses_read[field] then redis.call('HDEL', KEYS[5], field)
  elseif text and text ~= uses_read[field] then redis.call('HSET', KEYS[5], field, text) end
end
for i = 1, 5 do redis.call('PEXPIRE', KEYS[i], key_lifetime) end
for i in pairs(written) do redis.call('PEXPIRE', KEYS[i], key_lifetime) end
answer[#answer + 1], answer[#answer + 2] = waiting, soonest_tokens
return answer
