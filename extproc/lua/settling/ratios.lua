-- Of settle.lua: what the prompt tokens of a request teach of bytes per token and of the template. The arithmetic is that
-- of core/ratios.py and core/lessons.py, which say why.
local lowest, highest, first_share, least_share = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local lean_largest, lean_allowance, lean_limit = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local most_teachers, short_bytes, most_overhead = tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])
local R = { n = 1, mean = 2, deviation = 3, tokens = 4, lean = 5, lean_bytes = 6, lean_tokens = 7 }

local function bounded(value, least, most) return math.min(math.max(value, least), most) end

-- Who taught last comes first. Entries are NAME N MEAN DEVIATION, with spaces between.
local function teach(subject, entitlement, n, mean, deviation)
  local field, count = 'teachers ' .. subject, 1
  local class = { entitlement .. ' ' .. printed(n, mean, deviation) }
  for name, rest in string.gmatch(redis.call('HGET', KEYS[6], field) or '', '(%S+) (%S+ %S+ %S+)') do
    if name ~= entitlement and count < most_teachers then
      count = count + 1
      class[count] = name .. ' ' .. rest
    end
  end
  redis.call('HSET', KEYS[6], field, table.concat(class, ' '))
end

-- Where errors lean to one side for too long, only what was seen since they do counts any more.
local function leaning(r, error, bytes, tokens)
  local before = r[R.lean]
  local lean = before + bounded(error, -lean_largest, lean_largest)
  local size = math.max(0, math.abs(lean) - lean_allowance)
  lean = lean < 0 and -size or size
  if lean * before <= 0 then
    r[R.lean], r[R.lean_bytes], r[R.lean_tokens] = lean, size > 0 and bytes or 0, size > 0 and tokens or 0
    return r
  end
  local since_bytes, since_tokens = r[R.lean_bytes] + bytes, r[R.lean_tokens] + tokens
  if size > lean_limit then
    return { r[R.n], since_bytes / since_tokens, r[R.deviation], since_tokens, 0, 0, 0 }
  end
  r[R.lean], r[R.lean_bytes], r[R.lean_tokens] = lean, since_bytes, since_tokens
  return r
end

local function learn_ratio(entitlement, category, bytes, prompt_tokens)
  local field = 'ratio ' .. category .. ' ' .. entitlement
  local r = learned(field, 0, 0, 0, 0, 0, 0, 0)
  local observed = bounded(bytes / math.max(1, prompt_tokens), lowest, highest)
  local tokens = bytes / observed
  if r[R.n] == 0 then
    r = { 1, observed, first_share * observed, tokens, 0, 0, 0 }
  else
    local error, spread = observed - r[R.mean], math.max(r[R.deviation], least_share * r[R.mean])
    r[R.n], r[R.tokens] = r[R.n] + 1, beta * r[R.tokens] + tokens
    r[R.mean] = r[R.mean] + tokens / r[R.tokens] * error
    r[R.deviation] = r[R.deviation] + weight(r[R.n]) * (math.abs(error) - r[R.deviation])
    r = leaning(r, error / spread, bytes, tokens)
  end
  learn(field, unpack(r))
  teach(category, entitlement, r[R.n], r[R.mean], r[R.deviation])
end

-- Short texts tell the template's tokens, longer ones the ratio.
local function learn_prompt(entitlement, category, bytes, messages, tokens, believed_ratio, believed_overhead)
  local overhead = learned('overhead ' .. entitlement, 0, 0)
  if messages > 0 and bytes < short_bytes * messages then
    local known = learned('ratio ' .. category .. ' ' .. entitlement, 0, believed_ratio)
    local n, mean = nearer(overhead, bounded((tokens - bytes / known[R.mean]) / messages, 0, most_overhead))
    learn('overhead ' .. entitlement, n, mean)
    teach('overhead', entitlement, n, mean, 0)
  elseif bytes > 0 then
    local each = overhead[1] > 0 and overhead[2] or believed_overhead
    learn_ratio(entitlement, category, bytes, tokens - each * messages)
  end
end
