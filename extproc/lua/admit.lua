-- Decide a batch of requests of one model, in order: each gets its whole lease or nothing. Asked again for a lease
-- that is held, because Envoy tried a second sidecar, it answers the same and holds nothing more.
-- KEYS  1 entitlements  2 pools  3 leases  4 deadlines
-- ARGV  1 now in ms, '' for the server's clock  2 lease lifetime in ms  3 key lifetime in ms  4 number of pools
--       per pool 13: name, kv, slots, rate (tokens/s), depth (millitokens),
--                    promised to tier 0: kv, slots, rate, depth; promised to tier 1: kv, slots, rate, depth
--       per request 14 + n: lease, entitlement, tier, base rate, base kv, base slots, base depth, excess rate,
--                    excess depth, cap kv, cap slots, tokens, kv, n, n pool numbers in order of preference
-- Returns a flat list, 7 a request: outcome (0 admitted, 1 tokens/s, 2 kv, 3 slots, 4 pool), pool number,
--       retry ms, slots left, ms to the next slot, tokens left, ms until the buckets are full
local now, lifetime, key_lifetime = now_ms(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local position = 4
local function take(names, count)  -- the first values are names, even where they look like numbers
  local values = {}
  for i = 1, count do values[i] = i <= names and ARGV[position + i] or tonumber(ARGV[position + i]) end
  position = position + count
  return values
end

local pools = {}
for i = 1, tonumber(ARGV[4]) do
  local t = take(1, 13)
  local text = redis.call('HGET', KEYS[2], t[1])
  local record = text and unpacked(text) or { 0, 0, 0, 0, 0, 0, 0, t[5], t[9], t[13], now, 0 }
  local elapsed = math.max(0, now - record[P.at])
  record[P.level] = refilled(record[P.level], t[5], t[4], elapsed)
  record[P.level0] = refilled(record[P.level0], t[9], t[8], elapsed)
  record[P.level1] = refilled(record[P.level1], t[13], t[12], elapsed)
  record[P.at] = math.max(now, record[P.at])
  pools[i] = { name = t[1], kv = t[2], slots = t[3], rate = t[4], kv0 = t[6], slots0 = t[7], rate0 = t[8],
               depth0 = t[9], kv1 = t[10], slots1 = t[11], rate1 = t[12], depth1 = t[13], record = record }
end

local records, leases, deadlines, granted = {}, {}, {}, {}
local function entitlement(request)
  local record = records[request[2]]
  if not record then
    local text = redis.call('HGET', KEYS[1], request[2])
    record = text and unpacked(text) or { 0, 0, 0, 0, 0, request[7], request[9], now, 0, 0, 0 }
    local elapsed = math.max(0, now - record[E.at])
    record[E.level] = refilled(record[E.level], request[7], request[4], elapsed)
    record[E.excess] = refilled(record[E.excess], request[9], request[8], elapsed)
    record[E.at] = math.max(now, record[E.at])
    records[request[2]] = record
  end
  return record
end

-- How long until so much is free again, from how long leases have been held on average.
local function until_released(hold_ms, slots, releases)
  if hold_ms == 0 then hold_ms = 1000 end
  return math.max(100, math.ceil(hold_ms * math.min(releases, math.max(slots, 1)) / math.max(slots, 1)))
end
local function until_kv(record, missing, kv, slots)
  return until_released(record, slots, math.ceil(missing * slots / math.max(kv, 1)))
end
local function ms(millitokens, rate)
  if millitokens <= 0 then return 0 end
  if rate <= 0 then return 3600000 end
  return math.ceil(millitokens / rate)
end

-- When the base bucket alone, or both together, will hold the tokens; each stops growing at its depth.
local function until_tokens(r, e)
  local wanted, level, excess = r[12] * 1000, e[E.level], e[E.excess]
  local both = math.max(ms(wanted - level - excess, r[4] + r[8]), ms(wanted - r[7] - excess, r[8]),
                        ms(wanted - level - r[9], r[4]))
  if wanted > r[7] then return both end
  return math.min(both, ms(wanted - level, r[4]))
end

-- Outcome and retry ms where the entitlement's own caps refuse; else nil.
local function over_caps(r, e)
  local outcome, retry = nil, 0
  local function note(code, wait)
    if wait > retry then outcome, retry = code, wait end
  end
  if r[12] * 1000 > e[E.level] + math.max(0, e[E.excess]) then note(1, until_tokens(r, e)) end
  if e[E.kv] + r[13] > r[10] then note(2, until_kv(e[E.hold_ms], e[E.kv] + r[13] - r[10], e[E.kv], e[E.slots])) end
  if e[E.slots] + 1 > r[11] then note(3, until_released(e[E.hold_ms], e[E.slots], e[E.slots] + 1 - r[11])) end
  return outcome, retry
end

-- KV tokens and slots that are free in the pool and not kept for others. What tier 0 holds inside its base is its own
-- claim: no other stands in its way.
local function beside_claims(pool, r, in_base)
  local p, tier = pool.record, r[3]
  local kv, slots = pool.kv - p[P.kv], pool.slots - p[P.slots]
  if not (tier == 0 and in_base) then
    kv = kv - math.max(0, pool.kv0 - p[P.kv0])
    slots = slots - math.max(0, pool.slots0 - p[P.slots0])
  end
  if tier >= 2 then
    kv = kv - math.max(0, pool.kv1 - p[P.kv1])
    slots = slots - math.max(0, pool.slots1 - p[P.slots1])
  end
  return kv, slots
end

-- When the pool's bucket will hold the tokens beside what may still be claimed; 0: now. What comes from the base of
-- tier 0 is its own claim here, too.
local function until_pool_tokens(pool, r, from_level)
  local p, tier, wanted = pool.record, r[3], r[12] * 1000
  if tier == 0 and from_level == wanted then return 0 end
  local claimed, rate, depth = math.max(0, p[P.level0]), pool.rate0, pool.depth0  -- over-use claims nothing
  if tier == 0 then claimed, depth = math.max(0, claimed - from_level), depth - from_level end
  if tier >= 2 then
    claimed, rate, depth = claimed + math.max(0, p[P.level1]), rate + pool.rate1, depth + pool.depth1
  end
  if p[P.level] - wanted >= claimed then return 0 end
  local when_claims_are_full = ms(wanted + depth - p[P.level], pool.rate)
  if pool.rate <= rate then return when_claims_are_full end
  return math.min(when_claims_are_full, ms(wanted + claimed - p[P.level], pool.rate - rate))
end

-- Retry ms where the pool has no room; nil where it has.
local function without_room(pool, r, in_base, from_level)
  local p, wait = pool.record, until_pool_tokens(pool, r, from_level)
  local kv, slots = beside_claims(pool, r, in_base)
  if kv < r[13] then wait = math.max(wait, until_kv(p[P.hold_ms], r[13] - kv, p[P.kv], p[P.slots])) end
  if slots < 1 then wait = math.max(wait, until_released(p[P.hold_ms], p[P.slots], 1 - slots)) end
  if wait > 0 then return wait end
end

local function hold(r, e, pool, in_base, from_level)
  local p, tier, millitokens = pool.record, r[3], r[12] * 1000
  e[E.held], e[E.kv], e[E.slots] = e[E.held] + r[12], e[E.kv] + r[13], e[E.slots] + 1
  if in_base then e[E.base_kv], e[E.base_slots] = e[E.base_kv] + r[13], e[E.base_slots] + 1 end
  e[E.level], e[E.excess] = e[E.level] - from_level, e[E.excess] - (millitokens - from_level)
  e[E.peak_kv], e[E.peak_slots] = math.max(e[E.peak_kv], e[E.kv]), math.max(e[E.peak_slots], e[E.slots])
  p[P.held], p[P.kv], p[P.slots] = p[P.held] + r[12], p[P.kv] + r[13], p[P.slots] + 1
  if in_base and tier == 0 then p[P.kv0], p[P.slots0] = p[P.kv0] + r[13], p[P.slots0] + 1 end
  if in_base and tier == 1 then p[P.kv1], p[P.slots1] = p[P.kv1] + r[13], p[P.slots1] + 1 end
  p[P.level] = p[P.level] - millitokens
  if tier == 0 then p[P.level0] = p[P.level0] - from_level end
  if tier == 1 then p[P.level1] = p[P.level1] - from_level end
  if e[E.kv] > r[10] or e[E.slots] > r[11] or p[P.kv] > pool.kv or p[P.slots] > pool.slots then
    error('tokenpool: admitted above a cap: ' .. r[2] .. ' in ' .. pool.name)  -- nothing has been written yet
  end
  local numbers = packed({ tier, in_base and 1 or 0, r[12], r[13], from_level, millitokens - from_level, now })
  leases[#leases + 1], leases[#leases + 2] = r[1], r[2] .. ' ' .. pool.name .. ' ' .. numbers
  deadlines[#deadlines + 1], deadlines[#deadlines + 2] = now + lifetime, r[1]
end

local function pool_of_lease(id)
  if granted[id] then return granted[id] end
  local text = redis.call('HGET', KEYS[3], id)
  local name = text and string.match(text, '^%S+ (%S+)')
  for number, pool in ipairs(pools) do  -- any pool: another sidecar may have preferred another
    if pool.name == name then return number end
  end
end

-- Outcome, pool number, retry ms.
local function decide(r, e, numbers)
  local held = pool_of_lease(r[1])
  if held then return 0, held, 0 end
  local outcome, retry = over_caps(r, e)
  if outcome then return outcome, 0, retry end
  -- Inside the base in KV tokens and slots; its tokens may still come from the excess.
  local in_base = e[E.base_kv] + r[13] <= r[5] and e[E.base_slots] + 1 <= r[6]
  local from_level = r[12] * 1000
  if not in_base or e[E.level] < from_level then
    from_level = from_level - math.min(math.max(e[E.excess], 0), from_level)
  end
  local soonest = nil
  for _, number in ipairs(numbers) do
    local wait = without_room(pools[number], r, in_base, from_level)
    if not wait then
      hold(r, e, pools[number], in_base, from_level)
      granted[r[1]] = number
      return 0, number, 0
    end
    soonest = math.min(soonest or wait, wait)
  end
  return 4, 0, soonest
end

local answer = {}
while position < #ARGV do
  local r = take(2, 14)
  local numbers, e = take(0, r[14]), entitlement(r)
  local outcome, number, retry = decide(r, e, numbers)
  local left = math.max(0, r[11] - e[E.slots])
  for _, value in ipairs({ outcome, number, retry, left,
      left > 0 and 0 or until_released(e[E.hold_ms], e[E.slots], 1),
      math.max(0, math.floor((e[E.level] + math.max(0, e[E.excess])) / 1000)),
      math.max(ms(r[7] - e[E.level], r[4]), ms(r[9] - e[E.excess], r[8])) }) do
    answer[#answer + 1] = value
  end
end

for i = 1, #leases, 200 do  -- unpack has a limit; a lease is two values
  redis.call('HSET', KEYS[3], unpack(leases, i, math.min(i + 199, #leases)))
  redis.call('ZADD', KEYS[4], unpack(deadlines, i, math.min(i + 199, #deadlines)))
end
for name, record in pairs(records) do redis.call('HSET', KEYS[1], name, packed(record)) end
for _, pool in ipairs(pools) do redis.call('HSET', KEYS[2], pool.name, packed(pool.record)) end
for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], key_lifetime) end
return answer
