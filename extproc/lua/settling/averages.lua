-- Of settle.lua: what has been learned, and how one more observation counts.
local beta = tonumber(ARGV[4])

local function learned(field, ...)
  local text = redis.call('HGET', KEYS[6], field)
  return text and unpacked(text) or { ... }
end
local function printed(...)
  local texts = {}
  for i, value in ipairs({ ... }) do texts[i] = string.format('%.17g', value) end
  return table.concat(texts, ' ')
end
local function learn(field, ...) redis.call('HSET', KEYS[6], field, printed(...)) end
local function weight(n) return (1 - beta) / (1 - beta ^ n) end
local function nearer(record, observed)  -- n and mean
  local n = record[1] + 1
  return n, record[2] + weight(n) * (observed - record[2])
end
