-- Of admit.lua: its arguments, and the pools as they are now: capacity of the servers that answer, claims, levels.

local now, lifetime, key_lifetime = now_ms(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local remember_ms, most_waiting = tonumber(ARGV[4]), tonumber(ARGV[5])
local POOL_FIELDS, REQUEST_FIELDS, NAMES = 20, 19, 6
local MOST_UNMET, MOST_TRIED, SPOT_AFTER, GONE_MS = 32, 32, 1e13, 2000
local OK, TOKENS, KV, SLOTS, POOL, NO_SERVER, WAITS = 0, 1, 2, 3, 4, 5, 6
local position = 6
local written = {}  -- numbers of the keys that few requests write

local pools, number_of = {}, {}
local function share_of(field)
  local text = redis.call('HGET', KEYS[10], field)
  return text and unpacked(text)
end
local function unclaimed(pool, tier)
  local p, claim = pool.record, pool.claims[tier]
  return math.max(0, claim[1] - p[P.kv0 + 2 * tier]), math.max(0, claim[2] - p[P.slots0 + 2 * tier])
end
local function unclaimed_in(some, tier)  -- in several pools: what counts in one beyond its claim is off that of another
  local kv, slots = 0, 0
  for _, pool in ipairs(some) do
    local p, claim = pool.record, pool.claims[tier]
    kv, slots = kv + claim[1] - p[P.kv0 + 2 * tier], slots + claim[2] - p[P.slots0 + 2 * tier]
  end
  return kv, slots
end
for i = 1, tonumber(ARGV[6]) do
  local t = { ARGV[position + 1] }
  for j = 2, POOL_FIELDS do t[j] = tonumber(ARGV[position + j]) end
  position = position + POOL_FIELDS
  local shared = share_of('pool ' .. t[1])
  local s = shared or { t[2], t[16], t[14], t[15], 0, 0 }
  local live = math.min(s[1], t[2])
  local pool = { name = t[1], servers = live, kv = t[3] * live, slots = t[4] * live, depth = t[7],
                 rate = math.max(0, t[5] * live - t[6]), rate1 = t[12], depth1 = t[13],
                 rate2 = math.min(t[16], s[2]), depth2 = t[17], head_kv = t[18], head_slots = t[19],
                 lends = t[20] == 1, divided = shared,  -- else its claims are the bases, whole in every pool
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
