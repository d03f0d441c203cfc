-- What people do to queues. ARGV: the verb, and what it needs.
local verb = take()

local verbs = views

function verbs.declare()
  for _ = 1, take_number() do
    local queue, length, size, shedding = take(), take(), take(), take()
    know_queue(queue)
    call('HSET', P .. ':q:' .. queue, 'length', length, 'size', size)
    if shedding == '' then
      call('HDEL', P .. ':q:' .. queue, 'overflow')
    else
      call('HSET', P .. ':q:' .. queue, 'overflow', shedding)
    end
  end
  return 1
end

function verbs.pause()
  local queue = take()
  know_queue(queue)
  return call('SADD', P .. ':paused', queue)
end

function verbs.resume()
  local queue = take()
  local paused = call('SREM', P .. ':paused', queue)
  if paused == 1 then ring(queue) end
  return paused
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

-- Pairs of id and fresh value (without its lane).
function verbs.retry_dead()
  local moved = 0
  for _ = 1, take_number() do
    local id, fresh = take(), take()
    local value = exhume(id)
    if value then
      local lane, old = lane_of(value), call('HGET', P .. ':o', id)
      if old then reopen(id, old) end
      call('DECRBY', P .. ':ob', streams().drop({ id }))
      if fresh ~= '' then value = lane .. fresh end
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
