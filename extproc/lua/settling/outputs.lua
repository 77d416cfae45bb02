-- Of settle.lua: what answers teach of their length.
local p, first_step, last_step = tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])

-- Robbins-Monro on the logarithm: up by p, down by 1 - p, in steps that shrink to a floor. Of an answer that was cut
-- below the quantile nobody knows on which side of it it would have ended.
local function learn_output(field, tokens, cut)
  local record = learned(field, 0, tokens)
  if cut and record[1] > 0 and tokens <= record[2] then return end
  local n = record[1] + 1
  local step = math.max(last_step, first_step / math.sqrt(n))
  learn(field, n, math.max(1, record[2] * math.exp(step * (tokens > record[2] and p or p - 1))))
end

local function learn_answers(entitlement, completion, streamed, answers, limited, cut)
  if completion == 0 then return end
  learn_output((limited and 'output ' or 'open ') .. entitlement, completion / answers, cut)
  if streamed > 0 then learn('stream', nearer(learned('stream', 0, 0), streamed / completion)) end
end
