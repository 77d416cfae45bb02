-- Of admit.lua: a request, its entitlement's record, and what it may use now.

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
    known = { rate = r.most_rate, kv = r.most_kv, slots = r.most_slots, base_rate = r.base_rate,
              in_kv = r.base_kv, in_slots = r.base_slots }
  else
    known = { rate = math.max(r.base_rate, math.min(s[2], r.most_rate)),
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
local uses, uses_read = {}, {}
local function use(name, pool)
  local field = name .. ' ' .. pool
  if not uses[field] then
    local text = redis.call('HGET', KEYS[5], field)
    uses[field], uses_read[field] = text and unpacked(text) or { 0, 0, 0, 0 }, text
  end
  return uses[field]
end
