-- Shared by all operations: how state is written, and the clock.
--
-- Keyspace of a model M; every key has the tag {M}, so all of it lives in one slot of a Cluster:
--   tp1:{M}:entitlements  hash, entitlement -> E record     tp1:{M}:leases     hash, lease -> L record
--   tp1:{M}:pools         hash, pool -> P record            tp1:{M}:deadlines  sorted set, lease by deadline in ms
--   tp1:{M}:settled       hash, "ENTITLEMENT prompt|completion" -> tokens ever charged
--   tp1:{M}:estimates     hash, what has been learned (see settle.lua)
-- Records are numbers with spaces between. Levels are in millitokens (tokens/s x ms), times in ms, all integers.
-- Raise tp1 when a field changes its meaning: two releases can then run side by side.
local E = { held = 1, kv = 2, slots = 3, base_kv = 4, base_slots = 5, level = 6, excess = 7, at = 8, hold_ms = 9,
            peak_kv = 10, peak_slots = 11 }
local P = { held = 1, kv = 2, slots = 3, kv0 = 4, slots0 = 5, kv1 = 6, slots1 = 7, level = 8, level0 = 9, level1 = 10,
            at = 11, hold_ms = 12 }
-- L record: entitlement pool tier in_base tokens kv from_level from_excess admitted_at; in_base is 1 where the lease
-- counts against the base's KV tokens and slots, 0 where it is a burst; from_* in millitokens.
-- P: kv0, slots0 (kv1, slots1) are what base leases of tier 0 (1) use; level0 (level1) what that tier may still claim.

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

local function refilled(level, depth, rate, elapsed_ms)
  if depth <= 0 then return 0 end  -- no such bucket: nothing would ever refill it
  return math.min(depth, level + rate * elapsed_ms)
end

