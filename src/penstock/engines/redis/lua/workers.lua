-- Workers and their leases. ARGV: the verb, and what it needs.
local verb = take()
local WORKER_TTL = 60

local function sign_off(worker, started)
  call('HDEL', P .. ':wk', worker)
  call('ZREM', P .. ':wa', worker)
  local count_back = 0
  for _, token in ipairs(call('SMEMBERS', P .. ':wt:' .. worker)) do
    count_back = count_back + take_back(token, started)
  end
  call('DEL', P .. ':wt:' .. worker)
  return count_back
end

local verbs = {}

function verbs.join()
  local worker, info = take(), take()
  call('HSET', P .. ':wk', worker, info)
  call('ZADD', P .. ':wa', seconds(now + WORKER_TTL), worker)
  return 1
end

function verbs.renew()
  local until_time = seconds(now + take_number())
  for _, worker in ipairs(take_list()) do
    call('ZADD', P .. ':wa', 'XX', until_time, worker)
    for _, token in ipairs(call('SMEMBERS', P .. ':wt:' .. worker)) do
      call('ZADD', P .. ':leases', 'XX', 'GT', until_time, token)
    end
  end
  return 1
end

function verbs.sign_off()
  local worker = take()
  return sign_off(worker, take_started())
end

-- Tokens that ran out, with their workers.
local function expired()
  local tokens = call('ZRANGEBYSCORE', P .. ':leases', '-inf', seconds(now), 'LIMIT', 0, 100)
  local found = {}
  for i, token in ipairs(tokens) do found[i] = { token, (holder_of(token)) or '' } end
  return found
end

function verbs.expired() return expired() end

function verbs.take_back()
  local tokens, started, moved = take_list(), take_started(), 0
  for _, token in ipairs(tokens) do
    local until_time = call('ZSCORE', P .. ':leases', token)
    if until_time and tonumber(until_time) <= now then moved = moved + take_back(token, started) end
  end
  return moved
end

-- Who waits for results (or parts, by another `key`) and is gone: a few at random, each time.
local function drop_deaf(key)
  if call('EXISTS', key) == 0 then return end
  for _, id in ipairs(call('HRANDFIELD', key, 20)) do
    local listening = false
    for client in string.gmatch(call('HGET', key, id) or '', '%S+') do
      if call('PUBSUB', 'NUMSUB', P .. ':c:' .. client)[2] > 0 then listening = true end
    end
    if not listening then call('HDEL', key, id) end
  end
end

function verbs.tidy()
  local moved = 0
  for _, queue in ipairs(call('SMEMBERS', P .. ':qs')) do moved = moved + promote(queue, 1000) end
  for _, worker in ipairs(call('ZRANGEBYSCORE', P .. ':wa', '-inf', seconds(now), 'LIMIT', 0, 100)) do
    call('ZREM', P .. ':wa', worker)
    call('HDEL', P .. ':wk', worker)
  end
  expire_results(200)
  while true do -- revocations of what never came
    local oldest = call('LINDEX', P .. ':rvl', 0)
    oldest = oldest and cmsgpack.unpack(oldest)
    if not oldest or (oldest[1] + KEEP > now and call('LLEN', P .. ':rvl') <= 1000000) then break end
    call('LPOP', P .. ':rvl')
    call('HDEL', P .. ':rv', oldest[2])
  end
  drop_deaf(P .. ':in')
  drop_deaf(P .. ':pi')
  return { moved, expired() }
end

function verbs.list()
  return values_of(P .. ':wk', call('ZRANGEBYSCORE', P .. ':wa', '(' .. seconds(now), '+inf'))
end

local reply = verbs[verb]()
write_counts()
return reply
