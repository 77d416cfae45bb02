-- Shared by all operations: how state is written, and the clock.
--
-- Keyspace of a model M; every key has the tag {M}, so all of it lives in one slot of a Cluster:
--   tp3:{M}:entitlements  hash, entitlement -> E record     tp3:{M}:leases     hash, lease -> L record
--   tp3:{M}:pools         hash, pool -> P record            tp3:{M}:deadlines  sorted set, lease by deadline in ms
--   tp3:{M}:uses          hash, "ENTITLEMENT POOL" -> KV tokens and slots that its leases hold there, and
--                         what of both counts against its base or share there
--   tp3:{M}:borrowed      sorted set, "POOL LEASE" of leases that may be taken back; the highest score goes first
--   tp3:{M}:unmet         hash, entitlement -> distinct requests lately refused: "FINGERPRINT:UNTIL:POOL:KV:TOKENS"
--   tp3:{M}:queue         sorted set, "ORDER ARRIVAL LEASE ENTITLEMENT" of requests that wait, by tier
--   tp3:{M}:waiters       hash, lease -> W record           tp3:{M}:shares     hash, of the controller (shares.lua)
--   tp3:{M}:leader        hash, who sets the shares (lead.lua)
--   tp3:{M}:settled       hash, "ENTITLEMENT prompt|completion" -> tokens ever charged
--   tp3:{M}:estimates     hash, what has been learned (see settle.lua)
-- Records are numbers with spaces between. Levels are in millitokens (tokens/s x ms), times in ms, all integers.
-- Raise tp3 when a field changes its meaning: two releases can then run side by side.
local E = { held = 1, kv = 2, slots = 3, in_kv = 4, in_slots = 5, level = 6, excess = 7, at = 8, hold_ms = 9,
            peak_kv = 10, peak_slots = 11, asked = 12, served = 13 }
-- E: in_kv, in_slots are what counts against the base or share as it was when the entitlement last asked, in all pools:
-- of all that runs, up to the base (promised classes) in each pool, or up to the share (others) in all; asked, served
-- are tokens ever asked for, each distinct request once, and granted; settlement corrects both to what was used.
local P = { held = 1, kv = 2, slots = 3, kv0 = 4, slots0 = 5, kv1 = 6, slots1 = 7, kv2 = 8, slots2 = 9, kv3 = 10,
            slots3 = 11, borrowed_kv = 12, borrowed_slots = 13, level = 14, level1 = 15, level2 = 16, at = 17,
            hold_ms = 18 }
-- P: kv0, slots0 are the same, of all of tier 0 (dedicated); 1 guaranteed, 2 elastic, 3 spot and preemptible;
-- level1 (level2) is what the bases of tier 1 (2) may still claim of level. Dedicated rates are set aside of it.
local L = { tier = 1, borrowed = 2, tokens = 3, kv = 4, slots = 5, from_level = 6, from_excess = 7, at = 8 }
-- L record: entitlement, pool, channel of the worker that is told when it is taken back ('-': none), then these.
-- slots is 1, and 0 with kv once it was taken back; from_* are in millitokens.
-- W record: entitlement, first pool, kv, tokens, deadline, arrival, then the request as admit.lua was given it.

local function now_ms(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function unpacked(text)
  local values = {}
  for value in string.gmatch(text, '%S+') do values[#values + 1] = tonumber(value) end
  return values
end

local function packed(values)
  local texts = {}
  for i, value in ipairs(values) do texts[i] = string.format('%.0f', value) end
  return table.concat(texts, ' ')
end

local function lease_of(text)  -- names and numbers
  local entitlement, pool, channel, rest = string.match(text, '^(%S+) (%S+) (%S+) (.+)$')
  return { entitlement = entitlement, pool = pool, channel = channel, values = unpacked(rest) }
end

local function refilled(level, depth, rate, elapsed_ms)
  if depth <= 0 then return 0 end  -- no such bucket: nothing would ever refill it
  return math.min(depth, level + rate * elapsed_ms)
end

local function smoothed(hold_ms, lasted_ms)  -- how long leases are held, on average of the last eight or so
  local lasted = math.max(1, lasted_ms)
  return hold_ms == 0 and lasted or math.floor(hold_ms + (lasted - hold_ms) / 8 + 0.5)
end

-- KV tokens and slots of a lease go back to its entitlement (e), pool (p) and their use of it (u); each may be nil.
local function lower_claim(e, p, tier, kv, slots)
  if e then e[E.in_kv], e[E.in_slots] = e[E.in_kv] - kv, e[E.in_slots] - slots end
  if p then p[P.kv0 + 2 * tier], p[P.slots0 + 2 * tier] = p[P.kv0 + 2 * tier] - kv, p[P.slots0 + 2 * tier] - slots end
end
local function give_back_room(l, e, p, u, now)
  local v = l.values
  local kv, slots, tier = v[L.kv], v[L.slots], math.min(v[L.tier], 3)
  if e then
    e[E.kv], e[E.slots] = e[E.kv] - kv, e[E.slots] - slots
    if slots > 0 then e[E.hold_ms] = smoothed(e[E.hold_ms], now - v[L.at]) end
  end
  if p then
    p[P.kv], p[P.slots] = p[P.kv] - kv, p[P.slots] - slots
    if v[L.borrowed] == 1 then
      p[P.borrowed_kv], p[P.borrowed_slots] = p[P.borrowed_kv] - kv, p[P.borrowed_slots] - slots
    end
    if slots > 0 then p[P.hold_ms] = smoothed(p[P.hold_ms], now - v[L.at]) end
  end
  if u then
    u[1], u[2] = u[1] - kv, u[2] - slots
    local over_kv, over_slots = math.max(0, u[3] - u[1]), math.max(0, u[4] - u[2])
    lower_claim(e, p, tier, over_kv, over_slots)
    u[3], u[4] = u[3] - over_kv, u[4] - over_slots
  end
end
