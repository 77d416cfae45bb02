-- Turn leases into what was really used: once, however often it is called. A request that still waits gives up.
-- KEYS  1 entitlements  2 pools  3 leases  4 deadlines  5 settled  6 estimates  7 uses  8 borrowed  9 queue  10 waiters
-- ARGV  1 now in ms, '' for the server's clock  2 key lifetime in ms  3 lifetime of what is learned, in ms
--       of core/averages, ratios, teachers and lessons: 4 BETA  5, 6 lowest and highest bytes per token observed
--       7 FIRST_DEVIATION_SHARE  8 LEAST_DEVIATION_SHARE  9 LEAN_LARGEST  10 LEAN_ALLOWANCE  11 LEAN_LIMIT  12 TEACHERS
--       13 SHORT_TEXT_BYTES  14 MOST_MESSAGE_TOKENS  15 OUTPUT_QUANTILE  16, 17 its first and last step
--       per settlement 15: lease, channel of the only worker it may belong to ('': any), tokens charged, prompt tokens,
--                    completion tokens (both for the totals),
--                    category ('' teaches nothing), text bytes, messages, prompt tokens of that text,
--                    bytes of a streamed answer (0: not streamed), answers given (choices of all prompts),
--                    1 where the client set them a limit, 1 where the server cut them before that,
--                    bytes per token and tokens a message as believed before
-- Returns a flat list, one a settlement: 1 settled now, 0 settled or expired before; then how many wait for room
--
-- What is learned, in the estimates hash (numbers with spaces between, 17 digits):
--   "ratio CATEGORY ENTITLEMENT" -> core/ratios.Ratio: n, mean bytes per token, deviation, tokens that the mean stands
--                    for, lean, bytes and tokens since it began
--   "overhead ENTITLEMENT" -> n, mean tokens a message beside its text
--   "teachers CATEGORY", "teachers overhead" -> of entitlements that taught last: name, n, mean, deviation, and so on
--   "output ENTITLEMENT" -> n, quantile of the tokens of one answer with a limit of the client's own
--   "open ENTITLEMENT" -> the same of those without
--   "stream" -> n, mean bytes of a streamed answer a completion token
-- The same arithmetic as core/lessons.py, and a test says so.
local now = now_ms(ARGV[1])

local records = { [KEYS[1]] = {}, [KEYS[2]] = {}, [KEYS[7]] = {} }
local function record(key, name)  -- false where the server lost it: the lease is then all that is left to remove
  if records[key][name] == nil then
    local text = redis.call('HGET', key, name)
    records[key][name] = text and unpacked(text)
  end
  return records[key][name]
end

-- The difference between what was held and what is charged goes to the bucket that gave most of it. What comes from a
-- dedicated base is no part of the pool's bucket.
local function refund(l, e, p, charged)
  local v = l.values
  local from_level, from_excess, back = v[L.from_level], v[L.from_excess], (v[L.tokens] - charged) * 1000
  local to_level = math.min(back, from_level)
  if back < 0 and from_level < from_excess then to_level = 0 end
  if e then
    e[E.held], e[E.level], e[E.excess] = e[E.held] - v[L.tokens], e[E.level] + to_level, e[E.excess] + back - to_level
    e[E.asked], e[E.served] = e[E.asked] + charged - v[L.tokens], e[E.served] + charged - v[L.tokens]
  end
  if p then
    p[P.held], p[P.level] = p[P.held] - v[L.tokens], p[P.level] + (v[L.tier] == 0 and back - to_level or back)
    if v[L.tier] == 1 then p[P.level1] = p[P.level1] + to_level end
    if v[L.tier] == 2 then p[P.level2] = p[P.level2] + to_level end
  end
end

local function release(id, l, charged)
  local e, p = record(KEYS[1], l.entitlement), record(KEYS[2], l.pool)
  give_back_room(l, e, p, record(KEYS[7], l.entitlement .. ' ' .. l.pool), now)
  refund(l, e, p, charged)
  if l.values[L.borrowed] == 1 then redis.call('ZREM', KEYS[8], l.pool .. ' ' .. id) end
end

local function leave_queue(id, owner)  -- a request that gave up waiting
  local text = redis.call('HGET', KEYS[10], id)
  if not text then return end
  local name, arrival, channel, order =
    string.match(text, '^(%S+) %S+ %S+ %S+ %S+ (%S+) %S+ %S+ %S+ (%S+) (%S+)')
  if owner ~= '' and channel ~= owner then return end
  redis.call('ZREM', KEYS[9], order .. ' ' .. string.format('%015.0f', tonumber(arrival)) .. ' ' .. id .. ' ' .. name)
  redis.call('HDEL', KEYS[10], id)
end

local answer = {}
for at = 18, #ARGV, 15 do
  local id, owner, n = ARGV[at], ARGV[at + 1], {}
  for i = 2, 14 do n[i] = tonumber(ARGV[at + i]) end
  local text = redis.call('HGET', KEYS[3], id)
  local l = text and lease_of(text)
  if l and owner ~= '' and l.channel ~= owner then
    l = nil  -- another worker answers for it by now
  elseif l then
    release(id, l, n[2])
    redis.call('HDEL', KEYS[3], id)
    redis.call('ZREM', KEYS[4], id)
    redis.call('HINCRBY', KEYS[5], l.entitlement .. ' prompt', n[3])
    redis.call('HINCRBY', KEYS[5], l.entitlement .. ' completion', n[4])
    if ARGV[at + 5] ~= '' then
      learn_prompt(l.entitlement, ARGV[at + 5], n[6], n[7], n[8], n[13], n[14])
      learn_answers(l.entitlement, n[4], n[9], n[10], n[11] == 1, n[12] == 1)
    end
  else
    leave_queue(id, owner)
  end
  answer[#answer + 1] = l and 1 or 0
end

for key, changed in pairs(records) do
  for name, values in pairs(changed) do
    if values and key == KEYS[7] and values[1] == 0 and values[2] == 0 then redis.call('HDEL', key, name)
    elseif values then redis.call('HSET', key, name, packed(values)) end
  end
end
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
for i = 5, 6 do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
redis.call('PEXPIRE', KEYS[7], ARGV[2])
answer[#answer + 1] = redis.call('ZCARD', KEYS[9])
return answer
