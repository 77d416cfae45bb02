-- Of admit.lua: whether the entitlement's caps and the pool's claims leave room.

-- Inside the base or the share in KV tokens and slots, which are of all that runs; its tokens may still come from the
-- excess.
local function is_inside(r, e, t)
  return e[E.kv] + r.kv <= t.in_kv and e[E.slots] + 1 <= t.in_slots
end

local function over_caps(r, e, t)  -- outcome and retry ms where the entitlement's own caps refuse; else nil
  local outcome, retry = nil, 0
  local function note(code, wait)
    if wait > retry then outcome, retry = code, wait end
  end
  if r.tokens * 1000 > e[E.level] + math.max(0, e[E.excess]) then note(TOKENS, until_own_tokens(r, e, t)) end
  local kv, slots = e[E.kv] + r.kv - t.kv, e[E.slots] + 1 - t.slots
  if kv > 0 then note(KV, until_kv(e[E.hold_ms], kv, e[E.kv], e[E.slots])) end
  if slots > 0 then note(SLOTS, until_released(e[E.hold_ms], e[E.slots], slots)) end
  return outcome, retry
end

-- What an entitlement holds in a pool counts against its base or share as it is now, whenever it was admitted. A base
-- stands in every pool; of a share only what does not count in another pool is left.
local function claim(r, e, t, p, u)  -- p: the pool's record, u: the use of it
  local n = 2 * math.min(r.tier, 3)
  local most_kv, most_slots = t.in_kv, t.in_slots
  if r.tier > 1 then
    most_kv, most_slots = most_kv - e[E.in_kv] + u[3], most_slots - e[E.in_slots] + u[4]
  end
  local kv = math.min(u[1], math.max(0, most_kv)) - u[3]
  local slots = math.min(u[2], math.max(0, most_slots)) - u[4]
  u[3], u[4] = u[3] + kv, u[4] + slots
  e[E.in_kv], e[E.in_slots] = e[E.in_kv] + kv, e[E.in_slots] + slots
  p[P.kv0 + n], p[P.slots0 + n] = p[P.kv0 + n] + kv, p[P.slots0 + n] + slots
end

-- What others of its tier may still claim of a pool: what is left of the shares there less what it has left of its own,
-- which it may use anywhere; and no more than is left to the others in all pools, for how a share is divided among them
-- is not known here.
local function claims_of_others(pool, r, e, t)
  local tier = math.min(r.tier, 3)
  local kv, slots = unclaimed(pool, tier)
  kv, slots = kv - math.max(0, t.in_kv - e[E.kv]), slots - math.max(0, t.in_slots - e[E.slots])
  if kv <= 0 and slots <= 0 then return 0, 0 end
  local all_kv, all_slots = unclaimed_in(pool.divided and pools or { pool }, tier)
  local counted_kv, counted_slots = e[E.in_kv], e[E.in_slots]
  if not pool.divided then
    local u = use(r.name, pool.name)
    counted_kv, counted_slots = u[3], u[4]
  end
  return math.max(0, math.min(kv, all_kv - t.in_kv + counted_kv)),
         math.max(0, math.min(slots, all_slots - t.in_slots + counted_slots))
end

-- What of a request of a promised class is its own claim in a pool: what it has left of its base there.
local function own_claim(pool, r, t)
  local u = use(r.name, pool.name)
  return math.min(r.kv, t.in_kv - u[3]), math.min(1, t.in_slots - u[4])
end

-- KV tokens and slots of a pool beside what this request must leave. Others' claims must be left free; only those of
-- guaranteed bases (tier 1) may be covered by what borrowers hold. `lent`: it would borrow, and may be taken back.
-- A request above its base uses what is left of it; only in a unit where that is not enough it leaves elastic claims.
local function room(pool, r, inside, lent)
  local p, tier, e, t = pool.record, r.tier, entitlement(r)
  local kv, slots = pool.kv - p[P.kv], pool.slots - p[P.slots]
  if tier == 0 and inside then return kv, slots end
  local kept_kv, kept_slots = unclaimed(pool, 0)
  local covered_kv, covered_slots = unclaimed(pool, 1)
  if tier == 1 and inside then return kv - kept_kv, slots - kept_slots end
  local function keep(more_kv, more_slots) kept_kv, kept_slots = kept_kv + more_kv, kept_slots + more_slots end
  if tier < 2 then
    local own_kv, own_slots = own_claim(pool, r, t)
    local more_kv, more_slots = unclaimed(pool, 2)
    keep(own_kv < r.kv and more_kv or 0, own_slots < 1 and more_slots or 0)
    if tier == 0 then keep(-own_kv, -own_slots)
    else covered_kv, covered_slots = covered_kv - own_kv, covered_slots - own_slots end
  end
  if tier > 2 then keep(unclaimed(pool, 2)) end
  if tier > 1 and not inside then keep(claims_of_others(pool, r, e, t)) end
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
