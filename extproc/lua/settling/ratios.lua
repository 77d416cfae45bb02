-- Of settle.lua: what the prompt tokens of a request teach of bytes per token and of the template.

-- A far-off observation of one tenant moves the average of all by no more than a doubling would.
local function learn_ratio(field, observed, bounded)
  local record = learned(field, 0, prior, 0)
  local n, mean, deviation = record[1] + 1, record[2], record[3]
  if bounded and n > 10 then observed = math.min(math.max(observed, mean / 2), mean * 2) end
  local w = weight(n)
  learn(field, n, mean + w * (observed - mean), deviation + w * (math.abs(observed - mean) - deviation))
end

local function learn_prompt(entitlement, category, bytes, messages, tokens)
  local shared = learned('overhead', 0, prior_overhead)
  local own = learned('overhead ' .. entitlement, 0, shared[2])
  if messages > 0 and bytes < 128 * messages then  -- short texts tell the template's tokens, not the ratio
    local ratio = learned(category .. ' ' .. entitlement, 0, learned(category, 0, prior)[2])[2]
    local observed = math.min(math.max((tokens - bytes / ratio) / messages, 0), 64)
    for field, record in pairs({ overhead = shared, ['overhead ' .. entitlement] = own }) do
      local n = record[1] + 1
      learn(field, n, record[2] + weight(n) * (observed - record[2]))
    end
  elseif bytes > 0 then
    local observed = math.min(math.max(bytes / math.max(1, tokens - own[2] * messages), 0.25), 16)
    learn_ratio(category, observed, true)
    learn_ratio(category .. ' ' .. entitlement, observed, false)
  end
end
