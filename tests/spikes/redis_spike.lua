-- One script, loaded twice: `publish` may be refused when memory is full, all else (which ends work) may not.
-- KEYS[1]: the prefix, in a hash tag; so one namespace lives in one slot. ARGV: the verb, its request as MessagePack.
local call = redis.call
local P, verb, request = KEYS[1], ARGV[1], cmsgpack.unpack(ARGV[2])
local clock = call('TIME')
local now = clock[1] + clock[2] / 1e6

local function task(id) return P .. ':task:' .. id end
local function queue_of(name) return P .. ':queue:' .. name end
local function ready(name) return P .. ':ready:' .. name end

-- Priorities first, then first in first out; 10 * 2^48 fits into a double.
local function rank(priority) return (9 - priority) * 2 ^ 48 + call('INCR', P .. ':sequence') end

local function count(queue, tasks, bytes)
  call('HINCRBY', queue_of(queue), 'depth', tasks)
  call('HINCRBY', queue_of(queue), 'bytes', bytes)
end

local function place(id, queue, score, due)
  if due and due > now then
    call('ZADD', P .. ':delayed', due, id)
  else
    call('ZADD', ready(queue), score, id)
  end
  call('PUBLISH', P .. ':ring:' .. queue, '')
end

local function add(m)
  local score = rank(m.priority)
  call('HSET', task(m.id), 'data', m.data, 'size', #m.data, 'queue', m.queue, 'priority', m.priority,
    'score', score, 'attempts', 0)
  count(m.queue, 1, #m.data)
  place(m.id, m.queue, score, m.eta)
end

local function store(id, state, outcome)
  if call('HSETNX', task(id), 'outcome', outcome) == 0 then return 0 end
  call('HSET', task(id), 'state', state)
  call('EXPIRE', task(id), request.keep)
  call('PUBLISH', P .. ':done:' .. id, '')
  return 1
end

-- The name, depth, limit and unit of a queue that `sums` would overfill.
local function overfull(sums, limits)
  for queue, sum in pairs(sums) do
    local found = call('HMGET', queue_of(queue), 'depth', 'bytes', 'max_length', 'max_bytes')
    for i, unit in ipairs({ 'tasks', 'bytes' }) do
      local used, limit = tonumber(found[i] or 0), tonumber(found[i + 2] or limits[i])
      if used + sum[i] > limit then return { queue, used, limit, unit } end
    end
  end
end

local function publish()
  local answers, new, sums = {}, {}, {}
  for i, m in ipairs(request.batch) do
    answers[i] = 'duplicate'
    if not new[m.id] and call('EXISTS', task(m.id)) == 0 then
      answers[i], new[m.id] = 'accepted', m
      local sum = sums[m.queue] or { 0, 0 }
      sums[m.queue] = { sum[1] + 1, sum[2] + #m.data }
    end
  end
  local full = overfull(sums, request.limits)
  for i, m in ipairs(request.batch) do
    if answers[i] == 'accepted' then
      if full then answers[i] = 'full' else add(m) end
    end
  end
  return { answers, full or {} }
end

-- Work that follows from what is here: no bound refuses it. Answers 1 for what is new.
local function follow_up(messages)
  local added = {}
  for i, m in ipairs(messages) do
    added[i] = call('EXISTS', task(m.id)) == 0 and 1 or 0
    if added[i] == 1 then add(m) end
  end
  return added
end

local function unlease(id)
  call('HDEL', task(id), 'token')
  call('ZREM', P .. ':leases', id)
end

local function settle(s)
  local key = task(s.id)
  if call('HGET', key, 'token') ~= s.token then return 0 end
  unlease(s.id)
  local queue, size, priority, score = unpack(call('HMGET', key, 'queue', 'size', 'priority', 'score'))
  if s.outcome then store(s.id, s.state, s.outcome) end
  if s.verdict == 'Release' then
    place(s.id, queue, score)
  elseif s.verdict == 'RetryAt' then
    if s.data then
      call('HSET', key, 'data', s.data, 'size', #s.data)
      count(queue, 0, #s.data - size)
    end
    if s.charge then call('HINCRBY', key, 'attempts', 1) end
    score = rank(priority)
    call('HSET', key, 'score', score)
    place(s.id, queue, score, s.when)
  else
    count(queue, -1, -size)
    if s.verdict == 'Dead' then
      call('HSET', key, 'reason', s.reason)
      call('ZADD', P .. ':dead', now, s.id)
    else
      call('HDEL', key, 'data')
      call('EXPIRE', key, request.keep)
    end
  end
  follow_up(s.follow_ups)
  return 1
end

local function return_all(set, most)
  local ids = call('ZRANGEBYSCORE', P .. set, '-inf', now, 'LIMIT', 0, most)
  for _, id in ipairs(ids) do
    call('ZREM', P .. set, id)
    call('HDEL', task(id), 'token')
    place(id, unpack(call('HMGET', task(id), 'queue', 'score')))
  end
  return #ids
end

local function claim(want)
  local taken, bytes, token = {}, 0, tostring(call('INCR', P .. ':sequence'))
  for _, queue in ipairs(want.queues) do
    for _, id in ipairs(call('ZRANGE', ready(queue), 0, want.limit - #taken - 1)) do
      local data, attempts = unpack(call('HMGET', task(id), 'data', 'attempts'))
      bytes = bytes + #data
      if #taken > 0 and bytes > want.max_bytes then return taken, token end
      call('ZREM', ready(queue), id)
      call('HSET', task(id), 'token', token)
      call('ZADD', P .. ':leases', now + want.lease, id)
      taken[#taken + 1] = { id, data, attempts }
    end
    if #taken == want.limit then break end
  end
  return taken, token
end

local function step()
  local settled, taken, token = {}, {}, ''
  for i, s in ipairs(request.settle) do settled[i] = settle(s) end
  return_all(':delayed', 100)
  if request.want then taken, token = claim(request.want) end
  local due = call('ZRANGE', P .. ':delayed', 0, 0, 'WITHSCORES')[2]
  return { settled, token, taken, due and tostring(due - now) or '' }
end

local function extend()
  local answers = {}
  for i, receipt in ipairs(request.receipts) do
    local held = call('HGET', task(receipt[2]), 'token') == receipt[1]
    if held then call('ZADD', P .. ':leases', 'GT', now + request.lease, receipt[2]) end
    answers[i] = held and 1 or 0
  end
  return answers
end

if verb == 'publish' then return publish() end
if verb == 'follow_up' then return follow_up(request.batch) end
if verb == 'step' then return step() end
if verb == 'extend' then return extend() end
if verb == 'reap' then return return_all(':leases', 1000) + return_all(':delayed', 1000) end
local stored = {}
for i, s in ipairs(request.outcomes) do stored[i] = store(s.id, s.state, s.outcome) end
return stored
