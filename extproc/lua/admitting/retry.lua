-- Of admit.lua: when it is worth trying again.

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
