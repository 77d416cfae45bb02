-- Of admit.lua: the queue of those that wait.

local waiting, waiting_of = redis.call('ZCARD', KEYS[8]), {}  -- in all, and by entitlement
local PART = { [0] = 1, 1, 0.8, 0.5, 0.5 }  -- of the queue, up to which a tier may fill it
-- In a tenant's own order: 'n' and nothing, or by size, written so that the first to go sorts first; then as they came.
local function member_of(r, arrival)
  return r.order .. ' ' .. string.format('%015.0f', arrival) .. ' ' .. r.lease .. ' ' .. r.name
end
local function waiter(id)  -- its W record as a request, and when it gives up
  local text = redis.call('HGET', KEYS[9], id)
  if not text then return nil end
  local values = {}
  for value in string.gmatch(text, '%S+') do values[#values + 1] = value end
  local r = request(function(i) return values[6 + i] end)
  r.arrival = tonumber(values[6])
  return r, tonumber(values[5])
end
local function drop(member, id, name)
  redis.call('HDEL', KEYS[9], id)
  local gone = redis.call('ZREM', KEYS[8], member)
  waiting, waiting_of[name] = waiting - gone, (waiting_of[name] or gone) - gone
end
local function leave(r)
  drop(member_of(r, r.arrival), r.lease, r.name)
end

local blocked, soonest_tokens = {}, 1000000
local function is_promised(r)  -- never to wait behind a burst of its own entitlement
  local e, t = entitlement(r)
  return r.tier < 2 and is_inside(r, e, t)
end
local function serve(member, name)  -- false where it cannot go yet
  local id = string.match(member, '^%S+ %S+ (%S+)')
  local r, deadline = waiter(id)
  if not r or deadline + GONE_MS < now then
    drop(member, id, name)
    return true
  end
  if blocked[name] and not is_promised(r) then return false end
  local outcome, number, borrowed, retry = decide(r)
  if outcome == OK then
    leave(r)
    redis.call('PUBLISH', r.channel, 'granted ' .. id .. ' ' .. packed(answer_of(r, outcome, number, borrowed, retry)))
    return true
  end
  blocked[name] = true
  if outcome == TOKENS then soonest_tokens = math.min(soonest_tokens, retry) end
  return false
end

-- One line an entitlement; by class, then by what it weighs now, then by whose first came first.
local function lines()
  local of, all = {}, {}
  waiting_of = {}
  local flat = redis.call('ZRANGE', KEYS[8], 0, -1, 'WITHSCORES')
  for i = 1, #flat, 2 do
    local arrival, name = string.match(flat[i], '^%S+ (%S+) %S+ (%S+)$')
    if not of[name] then
      local share = share_of(name)
      of[name] = { name = name, tier = tonumber(flat[i + 1]), weight = share and share[1] or 1000, since = arrival }
      all[#all + 1] = of[name]
    end
    table.insert(of[name], flat[i])
    waiting_of[name] = (waiting_of[name] or 0) + 1
  end
  table.sort(all, function(a, b)
    if a.tier ~= b.tier then return a.tier < b.tier end
    if a.weight ~= b.weight then return a.weight > b.weight end
    if a.since ~= b.since then return a.since < b.since end
    return a.name < b.name
  end)
  return all
end

local function all_full()  -- nobody who cannot take anything back can have anything
  for _, pool in ipairs(pools) do
    if pool.record[P.slots] < pool.slots and pool.record[P.kv] < pool.kv then return false end
  end
  return true
end
local function serve_queue()
  if waiting == 0 then return end
  blocked, soonest_tokens = {}, 1000000
  for _, line in ipairs(lines()) do
    if line.tier > 1 and all_full() then return end
    local tried = 0
    for _, member in ipairs(line) do
      if not serve(member, line.name) then tried = tried + 1 end
      if tried > 0 and line.tier > 1 or tried >= MOST_TRIED then break end  -- those behind it wait, too
    end
  end
end

local function note_waiter(r, texts)
  redis.call('HSET', KEYS[9], r.lease, r.name .. ' ' .. pools[r.pools[1]].name .. ' ' ..
    packed({ r.kv, r.tokens, now + r.wait_ms, r.arrival }) .. ' ' .. texts)
end
local function enqueue(r, texts)
  local own = waiting_of[r.name] or 0
  if waiting >= most_waiting * PART[r.tier] or own >= r.most_waiting then return false end
  r.arrival = now
  written[8], written[9] = true, true
  redis.call('ZADD', KEYS[8], r.tier, member_of(r, now))
  note_waiter(r, texts)
  waiting, waiting_of[r.name] = waiting + 1, own + 1
  return true
end
