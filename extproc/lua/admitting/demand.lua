-- Of admit.lua: demand that was not met, each distinct request once.

-- Forgets the request's own entry; true where there was one, so that it is not counted as asked for again.
local any_unmet = redis.call('EXISTS', KEYS[7]) == 1
local function forget(r)
  local text = any_unmet and redis.call('HGET', KEYS[7], r.name)
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
  any_unmet, written[7] = true, true
end
local function count_asked(r)
  local e = entitlement(r)
  e[E.asked] = e[E.asked] + r.tokens
end
