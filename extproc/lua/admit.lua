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
local now, lifetime, key_lifetime = now_ms(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local remember_ms, most_waiting = tonumber(ARGV[4]), tonumber(ARGV[5])
local POOL_FIELDS, REQUEST_FIELDS, NAMES = 20, 19, 6
local MOST_UNMET, MOST_LINES, SPOT_AFTER, GONE_MS = 32, 128, 1e13, 2000
local OK, TOKENS, KV, SLOTS, POOL, NO_SERVER, WAITS = 0, 1, 2, 3, 4, 5, 6
local position = 6

-- Pools -------------------------------------------------------------------------------------------------------------
local pools, number_of = {}, {}
local function share_of(field)
  local text = redis.call('HGET', KEYS[10], field)
  return text and unpacked(text)
end
local function unclaimed(pool, tier)
  local p, claim = pool.record, pool.claims[tier]
  return math.max(0, claim[1] - p[P.kv0 + 2 * tier]), math.max(0, claim[2] - p[P.slots0 + 2 * tier])
end
for i = 1, tonumber(ARGV[6]) do
  local t = { ARGV[position + 1] }
  for j = 2, POOL_FIELDS do t[j] = tonumber(ARGV[position + j]) end
  position = position + POOL_FIELDS
  local s = share_of('pool ' .. t[1]) or { t[2], t[16], t[14], t[15], 0, 0 }
  local live = math.min(s[1], t[2])
  local pool = { name = t[1], servers = live, kv = t[3] * live, slots = t[4] * live, depth = t[7],
                 rate = math.max(0, t[5] * live - t[6]), rate1 = t[12], depth1 = t[13],
                 rate2 = math.min(t[16], s[2]), depth2 = t[17], head_kv = t[18], head_slots = t[19],
                 lends = t[20] == 1,
                 claims = { [0] = { t[8], t[9] }, { t[10], t[11] }, { s[3], s[4] }, { s[5], s[6] } } }
  local text = redis.call('HGET', KEYS[2], t[1])
  local p = text and unpacked(text) or { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, pool.depth, t[13], t[17], now, 0 }
  local elapsed = math.max(0, now - p[P.at])
  p[P.level] = refilled(p[P.level], pool.depth, pool.rate, elapsed)
  p[P.level1] = refilled(p[P.level1], pool.depth1, pool.rate1, elapsed)
  p[P.level2] = refilled(p[P.level2], pool.depth2, pool.rate2, elapsed)
  p[P.at] = math.max(now, p[P.at])
  pool.record = p
  pools[i], number_of[t[1]] = pool, i
end

-- Requests and entitlements -----------------------------------------------------------------------------------------
local function request(field)  -- field(i) is the i-th of its values, as text
  local r = { lease = field(1), name = field(2), fingerprint = field(3), channel = field(4), order = field(5),
              pools = {}, tier = tonumber(field(7)), base_rate = tonumber(field(8)), base_kv = tonumber(field(9)),
              base_slots = tonumber(field(10)), base_depth = tonumber(field(11)), most_rate = tonumber(field(12)),
              most_kv = tonumber(field(13)), most_slots = tonumber(field(14)), excess_depth = tonumber(field(15)),
              tokens = tonumber(field(16)), kv = tonumber(field(17)), wait_ms = tonumber(field(18)),
              most_waiting = tonumber(field(19)) }
  for name in string.gmatch(field(NAMES), '[^,]+') do
    if number_of[name] then r.pools[#r.pools + 1] = number_of[name] end
  end
  return r
end

-- What it may use now: the controller's word, within base and burst; what is promised is never less than the base.
local shares = {}
local function terms(r)
  local known = shares[r.name]
  if known then return known end
  local s = share_of(r.name)
  if not s then
    known = { weight = 1000, rate = r.most_rate, kv = r.most_kv, slots = r.most_slots, base_rate = r.base_rate,
              in_kv = r.base_kv, in_slots = r.base_slots }
  else
    known = { weight = s[1], rate = math.max(r.base_rate, math.min(s[2], r.most_rate)),
              kv = math.max(r.base_kv, math.min(s[3], r.most_kv)),
              slots = math.max(r.base_slots, math.min(s[4], r.most_slots)),
              base_rate = r.tier < 2 and r.base_rate or math.min(r.base_rate, s[5]),
              in_kv = r.tier < 2 and r.base_kv or s[6], in_slots = r.tier < 2 and r.base_slots or s[7] }
  end
  shares[r.name] = known
  return known
end

local records, fresh = {}, {}
local function record(name)  -- as it was written: levels are as old as their time
  if records[name] == nil then
    local text = redis.call('HGET', KEYS[1], name)
    records[name] = text and unpacked(text) or false
  end
  return records[name]
end
local function entitlement(r)
  local e, t = record(r.name), terms(r)
  if fresh[r.name] then return e, t end
  if not e then
    e = { 0, 0, 0, 0, 0, r.base_depth, r.excess_depth, now, 0, 0, 0, 0, 0 }
    records[r.name] = e
  end
  local elapsed = math.max(0, now - e[E.at])
  e[E.level] = refilled(e[E.level], r.base_depth, t.base_rate, elapsed)
  e[E.excess] = refilled(e[E.excess], r.excess_depth, t.rate - t.base_rate, elapsed)
  e[E.at] = math.max(now, e[E.at])
  fresh[r.name] = true
  return e, t
end
local uses = {}
local function use(name, pool)
  local field = name .. ' ' .. pool
  if not uses[field] then
    local text = redis.call('HGET', KEYS[5], field)
    uses[field] = text and unpacked(text) or { 0, 0 }
  end
  return uses[field]
end

-- When to try again -------------------------------------------------------------------------------------------------
local function until_released(hold_ms, slots, releases)  -- from how long leases have been held on average
  if hold_ms == 0 then hold_ms = 1000 end
  return math.max(100, math.ceil(hold_ms * math.min(releases, math.max(slots, 1)) / math.max(slots, 1)))
end
local function until_kv(hold_ms, missing, kv, slots)
  return until_released(hold_ms, slots, math.ceil(missing * slots / math.max(kv, 1)))
end
local function ms(millitokens, rate)
  if millitokens <= 0 then return 0 end
  if rate <= 0 then return 3600000 end
  return math.ceil(millitokens / rate)
end

-- When the base bucket alone, or both together, will hold the tokens; each stops growing at its depth.
local function until_tokens(r, e, base_rate, rate)
  local wanted, level, excess = r.tokens * 1000, e[E.level], e[E.excess]
  local both = math.max(ms(wanted - level - excess, rate), ms(wanted - r.base_depth - excess, rate - base_rate),
                        ms(wanted - level - r.excess_depth, base_rate))
  if wanted > r.base_depth then return both end
  return math.min(both, ms(wanted - level, base_rate))
end
local function until_own_tokens(r, e, t)
  local wait = until_tokens(r, e, t.base_rate, t.rate)
  if t.rate == r.most_rate and t.base_rate == r.base_rate then return wait end
  -- The next ticks may give more: no longer than with all that is configured, or than a refusal is remembered.
  return math.min(wait, math.max(until_tokens(r, e, r.base_rate, r.most_rate), remember_ms))
end

-- Whether it may ----------------------------------------------------------------------------------------------------
local function over_caps(r, e, t)  -- outcome and retry ms where the entitlement's own caps refuse; else nil
  local outcome, retry = nil, 0
  local function note(code, wait)
    if wait > retry then outcome, retry = code, wait end
  end
  if r.tokens * 1000 > e[E.level] + math.max(0, e[E.excess]) then note(TOKENS, until_own_tokens(r, e, t)) end
  if e[E.kv] + r.kv > t.kv then note(KV, until_kv(e[E.hold_ms], e[E.kv] + r.kv - t.kv, e[E.kv], e[E.slots])) end
  if e[E.slots] + 1 > t.slots then note(SLOTS, until_released(e[E.hold_ms], e[E.slots], e[E.slots] + 1 - t.slots)) end
  return outcome, retry
end

-- KV tokens and slots of a pool beside what this request must leave. Others' claims must be left free; only those of
-- guaranteed bases (tier 1) may be covered by what borrowers hold. `lent`: it would borrow, and may be taken back.
local function room(pool, r, inside, lent)
  local p, tier = pool.record, r.tier
  local kv, slots = pool.kv - p[P.kv], pool.slots - p[P.slots]
  if tier == 0 and inside then return kv, slots end
  local kept_kv, kept_slots = unclaimed(pool, 0)
  local covered_kv, covered_slots = unclaimed(pool, 1)
  if tier == 1 and inside then return kv - kept_kv, slots - kept_slots end
  local function keep(more_kv, more_slots) kept_kv, kept_slots = kept_kv + more_kv, kept_slots + more_slots end
  if not (tier == 2 and inside) then keep(unclaimed(pool, 2)) end
  if tier > 2 and not inside then keep(unclaimed(pool, 3)) end
  if lent then
    keep(math.min(pool.head_kv, covered_kv), math.min(pool.head_slots, covered_slots))
    return kv - kept_kv, slots - kept_slots
  end
  return math.min(kv, kv + p[P.borrowed_kv] - covered_kv) - kept_kv,
         math.min(slots, slots + p[P.borrowed_slots] - covered_slots) - kept_slots
end

-- When the pool's bucket will hold the tokens beside what others may still claim; 0: now. What comes from a promised
-- base is its own claim here, and dedicated ones are no part of this bucket.
local function until_pool_tokens(pool, r, from_level)
  local p, wanted = pool.record, r.tokens * 1000
  if r.tier == 0 then wanted = wanted - from_level end
  if r.tier == 0 and wanted == 0 or r.tier == 1 and from_level == wanted then return 0 end
  local claim1, claim2 = math.max(0, p[P.level1]), math.max(0, p[P.level2])  -- over-use claims nothing
  local depth = pool.depth1 + pool.depth2
  if r.tier == 1 then claim1, depth = math.max(0, claim1 - from_level), depth - from_level end
  if r.tier == 2 then claim2, depth = math.max(0, claim2 - from_level), depth - from_level end
  if r.tier == 2 and from_level == wanted then claim2, depth = 0, pool.depth1 end  -- inside its own share
  local claimed, rate = claim1 + claim2, pool.rate1 + pool.rate2
  if p[P.level] - wanted >= claimed then return 0 end
  local when_claims_are_full = ms(wanted + depth - p[P.level], pool.rate)
  if pool.rate <= rate then return when_claims_are_full end
  return math.min(when_claims_are_full, ms(wanted + claimed - p[P.level], pool.rate - rate))
end

-- Taking back -------------------------------------------------------------------------------------------------------
local function take_back_one(pool, id)
  local text = redis.call('HGET', KEYS[3], id)
  local l = lease_of(text)
  local v = l.values
  local kv, slots = v[L.kv], v[L.slots]
  give_back_room(l, record(l.entitlement), pool.record, use(l.entitlement, l.pool), now)
  v[L.kv], v[L.slots], v[L.borrowed], v[L.inside] = 0, 0, 0, 0
  redis.call('HSET', KEYS[3], id, l.entitlement .. ' ' .. l.pool .. ' ' .. l.channel .. ' ' .. packed(v))
  redis.call('ZREM', KEYS[6], pool.name .. ' ' .. id)
  redis.call('PUBLISH', l.channel, 'taken ' .. id)
  return kv, slots
end

-- Ends the youngest borrowers of a pool until so much is free; nothing where all of them would not be enough.
local function take_back(pool, kv, slots)
  if pool.record[P.borrowed_kv] < kv or pool.record[P.borrowed_slots] < slots then return false end
  local at = 0
  while kv > 0 or slots > 0 do
    local members = redis.call('ZREVRANGE', KEYS[6], at, at + 63)
    if #members == 0 then return false end
    at = at + #members
    for _, member in ipairs(members) do
      local name, id = string.match(member, '^(%S+) (%S+)$')
      if name == pool.name and (kv > 0 or slots > 0) then
        local freed_kv, freed_slots = take_back_one(pool, id)
        kv, slots, at = kv - freed_kv, slots - freed_slots, at - 1
      end
    end
  end
  return true
end

-- Granting ----------------------------------------------------------------------------------------------------------
local function hold(r, e, pool, inside, lent, from_level)
  local p, tier, millitokens = pool.record, math.min(r.tier, 3), r.tokens * 1000
  local u = use(r.name, pool.name)
  e[E.held], e[E.kv], e[E.slots] = e[E.held] + r.tokens, e[E.kv] + r.kv, e[E.slots] + 1
  e[E.level], e[E.excess] = e[E.level] - from_level, e[E.excess] - (millitokens - from_level)
  e[E.peak_kv], e[E.peak_slots] = math.max(e[E.peak_kv], e[E.kv]), math.max(e[E.peak_slots], e[E.slots])
  e[E.served] = e[E.served] + r.tokens
  p[P.held], p[P.kv], p[P.slots] = p[P.held] + r.tokens, p[P.kv] + r.kv, p[P.slots] + 1
  u[1], u[2] = u[1] + r.kv, u[2] + 1
  if inside then
    e[E.in_kv], e[E.in_slots] = e[E.in_kv] + r.kv, e[E.in_slots] + 1
    p[P.kv0 + 2 * tier], p[P.slots0 + 2 * tier] = p[P.kv0 + 2 * tier] + r.kv, p[P.slots0 + 2 * tier] + 1
  end
  if lent then
    p[P.borrowed_kv], p[P.borrowed_slots] = p[P.borrowed_kv] + r.kv, p[P.borrowed_slots] + 1
    redis.call('ZADD', KEYS[6], r.tier == 3 and now - SPOT_AFTER or now, pool.name .. ' ' .. r.lease)
  end
  p[P.level] = p[P.level] - (tier == 0 and millitokens - from_level or millitokens)
  if tier == 1 then p[P.level1] = p[P.level1] - from_level end
  if tier == 2 then p[P.level2] = p[P.level2] - from_level end
  local numbers = { r.tier, inside and 1 or 0, lent and 1 or 0, r.tokens, r.kv, 1, from_level, millitokens - from_level,
                    now }
  local names = r.name .. ' ' .. pool.name .. ' ' .. (lent and r.channel or '-')
  redis.call('HSET', KEYS[3], r.lease, names .. ' ' .. packed(numbers))
  redis.call('ZADD', KEYS[4], now + lifetime, r.lease)
end

local function held(id)  -- pool number and whether it is borrowed, of a lease that is held
  local text = redis.call('HGET', KEYS[3], id)
  if not text then return nil end
  local l = lease_of(text)
  return number_of[l.pool], l.values[L.borrowed]  -- any pool: another sidecar may have preferred another
end

-- Whether this pool takes the request now; else how long until it may.
local function try(r, e, t, pool)
  if pool.servers == 0 then return false, nil end
  -- Inside the base (promised classes) or the share in KV tokens and slots; its tokens may still come from the excess.
  local inside = e[E.in_kv] + r.kv <= t.in_kv and e[E.in_slots] + 1 <= t.in_slots
  local from_level = r.tokens * 1000
  if not (inside or r.tier == 2) or e[E.level] < from_level then
    from_level = from_level - math.min(math.max(e[E.excess], 0), from_level)
  end
  local wait = until_pool_tokens(pool, r, from_level)
  local lent = r.tier == 4
  local kv, slots = room(pool, r, inside, lent)
  if r.tier == 3 and pool.lends and (kv < r.kv or slots < 1) then
    lent = true
    kv, slots = room(pool, r, inside, lent)
  end
  if wait == 0 and kv >= r.kv and slots >= 1 or wait == 0 and r.tier < 2 and inside
      and take_back(pool, math.max(0, r.kv - kv), math.max(0, 1 - slots)) then
    hold(r, e, pool, inside, lent, from_level)
    return true, lent and 1 or 0
  end
  local p = pool.record
  if kv < r.kv then wait = math.max(wait, until_kv(p[P.hold_ms], r.kv - kv, p[P.kv], p[P.slots])) end
  if slots < 1 then wait = math.max(wait, until_released(p[P.hold_ms], p[P.slots], 1 - slots)) end
  return false, wait
end

local function decide(r)  -- outcome, pool number, borrowed, retry ms
  local e, t = entitlement(r)
  local number, borrowed = held(r.lease)
  if number then return OK, number, borrowed, 0 end
  local outcome, retry = over_caps(r, e, t)
  if outcome then return outcome, 0, 0, retry end
  local soonest = nil
  for _, each in ipairs(r.pools) do
    local yes, answer = try(r, e, t, pools[each])
    if yes then return OK, each, answer, 0 end
    if answer then soonest = math.min(soonest or answer, answer) end
  end
  if not soonest then return NO_SERVER, 0, 0, 1000 end
  return POOL, 0, 0, soonest
end

local function answer_of(r, outcome, number, borrowed, retry)
  local e, t = entitlement(r)
  local left = math.max(0, t.slots - e[E.slots])
  return { outcome, number, borrowed, retry, left, left > 0 and 0 or until_released(e[E.hold_ms], e[E.slots], 1),
           math.max(0, math.floor((e[E.level] + math.max(0, e[E.excess])) / 1000)),
           math.min(3600000, math.max(ms(r.base_depth - e[E.level], t.base_rate),
                                      ms(r.excess_depth - e[E.excess], t.rate - t.base_rate))) }
end

-- Demand that was not met -------------------------------------------------------------------------------------------
-- Forgets the request's own entry; true where there was one, so that it is not counted as asked for again.
local function forget(r)
  local text = redis.call('HGET', KEYS[7], r.name)
  if not text then return false end
  local kept, known = {}, false
  for entry in string.gmatch(text, '%S+') do
    local fingerprint, till = string.match(entry, '^([^:]*):(%d+)')
    if fingerprint == r.fingerprint then known = true elseif tonumber(till) > now then kept[#kept + 1] = entry end
  end
  if #kept == 0 then
    redis.call('HDEL', KEYS[7], r.name)
  else
    redis.call('HSET', KEYS[7], r.name, table.concat(kept, ' '))
  end
  return known
end
local function remember(r, retry)
  local text = redis.call('HGET', KEYS[7], r.name) or ''
  local _, count = string.gsub(text, '%S+', '')
  if count >= MOST_UNMET or not r.pools[1] then return end  -- enough to know that it wants more
  local entry = r.fingerprint .. ':' .. string.format('%.0f', now + math.min(retry, 60000) + remember_ms) .. ':' ..
    pools[r.pools[1]].name .. ':' .. string.format('%.0f:%.0f', r.kv, r.tokens)
  redis.call('HSET', KEYS[7], r.name, text == '' and entry or text .. ' ' .. entry)
end
local function count_asked(r)
  local e = entitlement(r)
  e[E.asked] = e[E.asked] + r.tokens
end

-- Waiting -----------------------------------------------------------------------------------------------------------
local waiting = redis.call('ZCARD', KEYS[8])
-- In a tenant's own order: 'n' and nothing, or by size, written so that the first to go sorts first; then as they came.
local function member_of(r, arrival)
  return r.order .. ' ' .. string.format('%015.0f', arrival) .. ' ' .. r.lease .. ' ' .. r.name
end
local function waiter(id)  -- its W record as a request, and when it gives up
  local text = redis.call('HGET', KEYS[9], id)
  if not text then return nil end
  local values = {}
  for value in string.gmatch(text, '%S+') do values[#values + 1] = value end
  local r = request(function(i) return values[6 + i] end)
  r.arrival = tonumber(values[6])
  return r, tonumber(values[5])
end
local function leave(r)
  redis.call('HDEL', KEYS[9], r.lease)
  waiting = waiting - redis.call('ZREM', KEYS[8], member_of(r, r.arrival))
end

local blocked, soonest_tokens = {}, 1000000
local function serve(member, name)  -- false where it cannot go yet, nor those of its entitlement behind it
  local id = string.match(member, '^%S+ %S+ (%S+)')
  local r, deadline = waiter(id)
  if not r or deadline + GONE_MS < now then
    redis.call('ZREM', KEYS[8], member)
    redis.call('HDEL', KEYS[9], id)
    waiting = waiting - 1
    return true
  end
  local outcome, number, borrowed, retry = decide(r)
  if outcome == OK then
    leave(r)
    redis.call('PUBLISH', r.channel, 'granted ' .. id .. ' ' .. packed(answer_of(r, outcome, number, borrowed, retry)))
    return true
  end
  blocked[name] = true
  if outcome == TOKENS then soonest_tokens = math.min(soonest_tokens, retry) end
  return false
end

-- One line an entitlement; by class, then by what it weighs now, then by whose first came first.
local function lines()
  local of, all = {}, {}
  local flat = redis.call('ZRANGE', KEYS[8], 0, -1, 'WITHSCORES')
  for i = 1, #flat, 2 do
    local arrival, name = string.match(flat[i], '^%S+ (%S+) %S+ (%S+)$')
    if not of[name] then
      local share = share_of(name)
      of[name] = { name = name, tier = tonumber(flat[i + 1]), weight = share and share[1] or 1000, since = arrival }
      all[#all + 1] = of[name]
    end
    table.insert(of[name], flat[i])
  end
  table.sort(all, function(a, b)
    if a.tier ~= b.tier then return a.tier < b.tier end
    if a.weight ~= b.weight then return a.weight > b.weight end
    if a.since ~= b.since then return a.since < b.since end
    return a.name < b.name
  end)
  return all
end

local function serve_queue()
  if waiting == 0 then return end
  blocked, soonest_tokens = {}, 1000000
  for number, line in ipairs(lines()) do
    if number > MOST_LINES then return end
    for _, member in ipairs(line) do
      if not serve(member, line.name) then break end
    end
  end
end

local function waiting_of(name)
  local count = 0
  for _, member in ipairs(redis.call('ZRANGE', KEYS[8], 0, -1)) do
    if string.match(member, '(%S+)$') == name then count = count + 1 end
  end
  return count
end
local function enqueue(r, texts)
  if waiting >= most_waiting or (waiting > 0 and waiting_of(r.name) >= r.most_waiting) then return false end
  r.arrival = now
  redis.call('ZADD', KEYS[8], r.tier, member_of(r, now))
  redis.call('HSET', KEYS[9], r.lease, r.name .. ' ' .. pools[r.pools[1]].name .. ' ' ..
    packed({ r.kv, r.tokens, now + r.wait_ms, now }) .. ' ' .. texts)
  waiting = waiting + 1
  return true
end

-- One that may wait goes through the queue, so that none overtakes those of its entitlement that are before it.
local function ask(r, texts)
  local queued = waiter(r.lease)
  if queued and r.wait_ms > 0 then return WAITS, 0, 0, 0 end  -- asked again
  if queued then leave(queued) end
  local joins = r.wait_ms > 0 and r.pools[1] and blocked[r.name]
  local outcome, number, borrowed, retry = WAITS, 0, 0, 0
  if not joins then outcome, number, borrowed, retry = decide(r) end
  local known = queued or forget(r)
  if not known then count_asked(r) end
  if outcome == OK then return outcome, number, borrowed, retry end
  if r.wait_ms > 0 and r.pools[1] and outcome ~= NO_SERVER and enqueue(r, texts) then
    if outcome == TOKENS then soonest_tokens = math.min(soonest_tokens, retry) end
    if joins and string.byte(r.order) ~= 110 then serve_queue() end  -- it may go before those that block it
    number, borrowed = held(r.lease)
    if number then return OK, number, borrowed, 0 end
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

for name, values in pairs(records) do
  if values then redis.call('HSET', KEYS[1], name, packed(values)) end
end
for _, pool in ipairs(pools) do redis.call('HSET', KEYS[2], pool.name, packed(pool.record)) end
for field, values in pairs(uses) do
  if values[1] == 0 and values[2] == 0 then redis.call('HDEL', KEYS[5], field)
  else redis.call('HSET', KEYS[5], field, packed(values)) end
end
for i = 1, 9 do redis.call('PEXPIRE', KEYS[i], key_lifetime) end
answer[#answer + 1], answer[#answer + 2] = waiting, soonest_tokens
return answer
