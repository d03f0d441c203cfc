-- What people do to queues. ARGV: the verb, and what it needs.
local verb = take()

local function lanes_of(queue)
  local lanes = call('ZRANGE', P .. ':lanes:' .. queue, 0, -1)
  for i, suffix in ipairs(lanes) do lanes[i] = queue .. '/' .. suffix end
  return lanes
end

local verbs = {}

function verbs.declare()
  for _ = 1, take_number() do
    local queue, length, size = take(), take(), take()
    know_queue(queue)
    call('HSET', P .. ':q:' .. queue, 'length', length, 'size', size)
  end
  return 1
end

function verbs.depth()
  local q = call('HMGET', P .. ':q:' .. take(), 'ready', 'leased', 'delayed')
  return (tonumber(q[1]) or 0) + (tonumber(q[2]) or 0) + (tonumber(q[3]) or 0)
end

local function oldest_of(queue)
  local oldest
  for _, lane in ipairs(call('ZRANGE', P .. ':lanes:' .. queue, 0, 99)) do
    local first = tonumber(call('ZRANGE', P .. ':r:' .. queue .. '/' .. lane, 0, 0, 'WITHSCORES')[2])
    if first and (not oldest or first < oldest) then oldest = first end
  end
  return oldest and seconds(math.max(0, now - oldest / 1e6)) or ''
end

-- All queues whose key begins with the given namespace.
function verbs.queues()
  local all, namespace, found = take() == '1', take(), {}
  for _, queue in ipairs(call('SMEMBERS', P .. ':qs')) do
    if all or namespace_of(queue .. '/') == namespace then
      promote(queue, 1000)
      write_counts()
      local q = call('HMGET', P .. ':q:' .. queue, 'length', 'size', 'ready', 'leased', 'delayed', 'bytes', 'dead', 'enqueued', 'settled')
      for i = 1, 9 do q[i] = q[i] or '' end
      found[#found + 1] = { queue, oldest_of(queue), q }
    end
  end
  return found
end

function verbs.peek()
  local queue, limit, found = take(), take_number(), {}
  promote(queue, 1000)
  local function show(state, id, due)
    local value = #found < limit and call('HGET', P .. ':m', id)
    if value then found[#found + 1] = { state, id, value, due } end
  end
  for _, lane in ipairs(lanes_of(queue)) do
    for _, id in ipairs(call('ZRANGE', P .. ':r:' .. lane, 0, limit - 1)) do show('ready', id, '') end
    if #found >= limit then return found end
  end
  local delayed = call('ZRANGE', P .. ':due:' .. queue, 0, limit - 1, 'WITHSCORES')
  for i = 1, #delayed, 2 do show('delayed', delayed[i], delayed[i + 1]) end
  for _, token in ipairs(call('ZRANGE', P .. ':leases', 0, 999)) do
    local _, lane = holder_of(token)
    if #found < limit and lane and queue_of(lane) == queue then
      for _, id in ipairs(call('HKEYS', P .. ':h:' .. token)) do show('leased', id, '') end
    end
  end
  return found
end

-- Drop up to `most` of what waits; returns how many. 0: nothing is left.
function verbs.purge()
  local queue, most, dropped = take(), take_number(), 0
  local function drop(lane, id, where)
    count(queue, where, -1)
    finish_revoked(lane, id)
    dropped = dropped + 1
  end
  for _, lane in ipairs(lanes_of(queue)) do
    local popped = call('ZPOPMIN', P .. ':r:' .. lane, most - dropped)
    for i = 1, #popped, 2 do drop(lane, popped[i], 'ready') end
    close_if_empty(lane)
    if dropped >= most then return dropped end
  end
  local popped = call('ZPOPMIN', P .. ':due:' .. queue, most - dropped)
  for i = 1, #popped, 2 do
    local value = call('HGET', P .. ':m', popped[i])
    if value then drop(lane_of(value), popped[i], 'delayed') end
  end
  return dropped
end

function verbs.dead_letters()
  local queues, limit, found = take_list(), take_number(), {}
  for _, queue in ipairs(queues) do
    for _, id in ipairs(call('ZRANGE', P .. ':dl:' .. queue, 0, limit - #found - 1)) do
      found[#found + 1] = { id, call('HGET', P .. ':dm', id), cmsgpack.unpack(call('HGET', P .. ':di', id)) }
    end
    if #found >= limit then break end
  end
  return found
end

function verbs.dead_messages()
  local found = values_of(P .. ':dm', take_list())
  return found
end

local function exhume(id)
  local value = call('HGET', P .. ':dm', id)
  if not value then return nil end
  local queue = queue_of(lane_of(value))
  call('HDEL', P .. ':dm', id)
  call('HDEL', P .. ':di', id)
  call('ZREM', P .. ':dl:' .. queue, id)
  count(queue, 'dead', -1)
  return value
end

-- Pairs of id and fresh message (without its lane).
function verbs.retry_dead()
  local moved = 0
  for _ = 1, take_number() do
    local id, fresh = take(), take()
    local value = exhume(id)
    if value then
      local lane, old = lane_of(value), call('HGET', P .. ':o', id)
      if old then
        call('HDEL', P .. ':o', id)
        call('HINCRBY', P .. ':stale', id, 1)
        call('DECRBY', P .. ':ob', #old + #id + OVERHEAD)
      end
      if fresh ~= '' then value = lane .. ' ' .. fresh end
      call('HSET', P .. ':m', id, value)
      count(queue_of(lane), 'enqueued', 1)
      count(queue_of(lane), 'bytes', #value)
      place(lane, id)
      moved = moved + 1
    end
  end
  return moved
end

function verbs.drop_dead()
  local dropped = 0
  for _, id in ipairs(take_list()) do
    if exhume(id) then dropped = dropped + 1 end
  end
  return dropped
end

local reply = verbs[verb]()
write_counts()
return reply
