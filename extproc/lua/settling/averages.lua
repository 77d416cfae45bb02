-- Of settle.lua: what has been learned, and how one more observation counts.
local beta, prior, prior_overhead = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function learned(field, ...)
  local text = redis.call('HGET', KEYS[6], field)
  return text and unpacked(text) or { ... }
end
local function learn(field, ...)
  local texts = {}
  for i, value in ipairs({ ... }) do texts[i] = string.format('%.17g', value) end
  redis.call('HSET', KEYS[6], field, table.concat(texts, ' '))
end
local function weight(n) return (1 - beta) / (1 - beta ^ n) end
