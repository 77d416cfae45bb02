-- Of admit.lua: borrowed leases are taken back, leases are held, a request is decided.

local function keep_lease(id, l)
  redis.call('HSET', KEYS[3], id, l.entitlement .. ' ' .. l.pool .. ' ' .. l.channel .. ' ' .. packed(l.values))
end

local function take_back_one(pool, id)
  redis.call('ZREM', KEYS[6], pool.name .. ' ' .. id)
  local text = redis.call('HGET', KEYS[3], id)
  if not text then return 0, 0 end  -- the server lost it
  local l = lease_of(text)
  local v = l.values
  local kv, slots = v[L.kv], v[L.slots]
  give_back_room(l, record(l.entitlement), pool.record, use(l.entitlement, l.pool), now)
  v[L.kv], v[L.slots], v[L.borrowed] = 0, 0, 0
  keep_lease(id, l)
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

local function hold(r, e, t, pool, lent, from_level)
  local p, tier, millitokens = pool.record, math.min(r.tier, 3), r.tokens * 1000
  local u = use(r.name, pool.name)
  e[E.held], e[E.kv], e[E.slots] = e[E.held] + r.tokens, e[E.kv] + r.kv, e[E.slots] + 1
  e[E.level], e[E.excess] = e[E.level] - from_level, e[E.excess] - (millitokens - from_level)
  e[E.peak_kv], e[E.peak_slots] = math.max(e[E.peak_kv], e[E.kv]), math.max(e[E.peak_slots], e[E.slots])
  e[E.served] = e[E.served] + r.tokens
  p[P.held], p[P.kv], p[P.slots] = p[P.held] + r.tokens, p[P.kv] + r.kv, p[P.slots] + 1
  u[1], u[2] = u[1] + r.kv, u[2] + 1
  claim(r, e, t, p, u)
  if lent then
    p[P.borrowed_kv], p[P.borrowed_slots] = p[P.borrowed_kv] + r.kv, p[P.borrowed_slots] + 1
    written[6] = true
    redis.call('ZADD', KEYS[6], r.tier == 3 and now - SPOT_AFTER or now, pool.name .. ' ' .. r.lease)
  end
  p[P.level] = p[P.level] - (tier == 0 and millitokens - from_level or millitokens)
  if tier == 1 then p[P.level1] = p[P.level1] - from_level end
  if tier == 2 then p[P.level2] = p[P.level2] - from_level end
  keep_lease(r.lease, { entitlement = r.name, pool = pool.name, channel = r.channel, values = {
    r.tier, lent and 1 or 0, r.tokens, r.kv, 1, from_level, millitokens - from_level, now } })
  redis.call('ZADD', KEYS[4], now + lifetime, r.lease)
end

-- Pool number and whether it is borrowed, of a lease that is held: in any pool, another sidecar may have preferred
-- another. Who asks last is told of it. Where its room was taken back meanwhile, that is what he is told.
local function held(r)
  local text = redis.call('HGET', KEYS[3], r.lease)
  if not text then return nil end
  local l = lease_of(text)
  if l.channel ~= r.channel then
    l.channel = r.channel
    keep_lease(r.lease, l)
  end
  if l.values[L.slots] > 0 then return number_of[l.pool], l.values[L.borrowed] end
  redis.call('PUBLISH', r.channel, 'taken ' .. r.lease)
  return number_of[l.pool], 1
end

-- Whether this pool takes the request now; else how long until it may.
local function try(r, e, t, pool)
  if pool.servers == 0 then return false, nil end
  local inside = is_inside(r, e, t)
  if not (inside and r.tier < 2) then claim(r, e, t, pool.record, use(r.name, pool.name)) end
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
    hold(r, e, t, pool, lent, from_level)
    return true, lent and 1 or 0
  end
  local p = pool.record
  if kv < r.kv then wait = math.max(wait, until_kv(p[P.hold_ms], r.kv - kv, p[P.kv], p[P.slots])) end
  if slots < 1 then wait = math.max(wait, until_released(p[P.hold_ms], p[P.slots], 1 - slots)) end
  return false, wait
end

local function decide(r)  -- outcome, pool number, borrowed, retry ms
  local e, t = entitlement(r)
  local number, borrowed = held(r)
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
