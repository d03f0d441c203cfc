-- Looking on: what is known of tasks and queues. A replica runs these, too, without what writes (see glass.lua).
local views = {}

local function look(id)
  local record = call('HGET', P .. ':o', id)
  if record and record ~= '' then return { 'o', record } end
  local value = call('HGET', P .. ':m', id)
  if value then
    local progress = call('HGET', P .. ':pg', id)
    return { 'm', value, extra(id).r and 'r' or '', progress or '', revoking().waits(lane_of(value), id) and 0 or 1 }
  end
  local dead = call('HGET', P .. ':dm', id)
  if dead then return { 'd', dead } end
  return { '' }
end

function views.fetch()
  local found = {}
  for i, id in ipairs(take_list()) do found[i] = look(id) end
  return found
end

-- The lanes of a queue that have something, up to `most` of them: those that may go, then what is shut.
local function lanes_of(queue, most)
  local lanes = {}
  for _, key in ipairs({ ':lanes:', ':shut:' }) do
    for _, entry in ipairs(call('ZRANGE', P .. key .. queue, 0, most and most - 1 or -1)) do
      if string.find(entry, '/', 3, true) then
        local priority, limit = string.sub(entry, 1, 2), string.sub(entry, 3)
        for _, partition in ipairs(call('ZRANGE', P .. ':lp:' .. queue .. '/' .. entry, 0, most and most - 1 or -1)) do
          lanes[#lanes + 1] = queue .. '/' .. priority .. partition .. limit
        end
      else
        lanes[#lanes + 1] = queue .. '/' .. entry
      end
      if most and #lanes >= most then return lanes end
    end
  end
  return lanes
end

function views.depth()
  local q = call('HMGET', P .. ':q:' .. take(), 'ready', 'leased', 'delayed')
  return (tonumber(q[1]) or 0) + (tonumber(q[2]) or 0) + (tonumber(q[3]) or 0)
end

local function oldest_of(queue)
  local oldest
  for _, lane in ipairs(lanes_of(queue, 100)) do
    local first = tonumber(call('ZRANGE', P .. ':r:' .. lane, 0, 0, 'WITHSCORES')[2])
    if first and (not oldest or first < oldest) then oldest = first end
  end
  return oldest and seconds(math.max(0, now - oldest / 1e6)) or ''
end

-- All queues whose key begins with the given namespace.
function views.queues()
  local all, namespace, found = take() == '1', take(), {}
  for _, queue in ipairs(call('SMEMBERS', P .. ':qs')) do
    if all or namespace_of(queue .. '/') == namespace then
      promote(queue, 1000)
      write_counts()
      local q = call('HMGET', P .. ':q:' .. queue, 'length', 'size', 'ready', 'leased', 'delayed', 'bytes', 'dead', 'enqueued', 'settled', 'shed')
      for i = 1, 10 do q[i] = q[i] or '' end
      q[11] = digits(call('SISMEMBER', P .. ':paused', queue))
      found[#found + 1] = { queue, oldest_of(queue), q }
    end
  end
  return found
end

function views.peek()
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

function views.dead_letters()
  local queues, limit, found = take_list(), take_number(), {}
  for _, queue in ipairs(queues) do
    for _, id in ipairs(call('ZRANGE', P .. ':dl:' .. queue, 0, limit - #found - 1)) do
      found[#found + 1] = { id, call('HGET', P .. ':dm', id), cmsgpack.unpack(call('HGET', P .. ':di', id)) }
    end
    if #found >= limit then break end
  end
  return found
end
