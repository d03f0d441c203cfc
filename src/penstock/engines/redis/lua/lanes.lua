-- Lanes, and who waits for them.

-- Wake one of those who wait for this queue. Who does not listen any more is skipped, and forgotten.
local function ring(queue)
  local key = P .. ':wait:' .. queue
  local popped = call('ZPOPMIN', key)
  while popped[1] do
    local client = string.match(popped[1], '^(%S+) ')
    if tonumber(popped[2]) >= now and call('PUBLISH', P .. ':c:' .. client, 'w' .. popped[1]) > 0 then return end
    popped = call('ZPOPMIN', key)
  end
end

local function turn(priority) return (9 - priority) * 1e15 + call('INCR', P .. ':turn') end

-- The queue of a lane, and what stands for it there; if that is limited, its partition, and its namespace and key.
local function split(lane)
  local queue, entry = string.match(lane, '^([^/]*/[^/]*)/(.*)$')
  if not string.find(entry, '/', 3, true) then return queue, entry end
  local partition, key = string.match(entry, '^./([^/]*)/(.*)$')
  return queue, string.sub(entry, 1, 1) .. '//' .. key, partition, namespace_of(lane) .. '/' .. key
end

-- Tasks of one lane are leased no more. (They are, by `lease` in claiming.lua; nothing else counts them.)
local function unlease(lane, ids)
  local queue, _, _, name = split(lane)
  count(queue, 'leased', -#ids)
  if not name then return end
  many('SREM', P .. ':ll:' .. name, ids)
  limits().reopen(name, '+inf')
end

-- Let tasks wait in their lane for a worker. `pairs` = place, id, place, id…
local function line_up(lane, places_and_ids)
  local queue, entry, partition, name = split(lane)
  local is_shut = name and call('ZSCORE', P .. ':shut:' .. queue, entry)
  if call('EXISTS', P .. ':r:' .. lane) == 0 then
    if name then call('ZADD', P .. ':lp:' .. queue .. '/' .. entry, call('INCR', P .. ':turn'), partition) end
    if not is_shut then
      call('ZADD', P .. ':lanes:' .. queue, 'NX', turn(tonumber(string.sub(entry, 1, 1))), entry)
    end
  end
  many('ZADD', P .. ':r:' .. lane, places_and_ids)
  count(queue, 'ready', #places_and_ids / 2)
  if not is_shut then ring(queue) end
end

local function close_if_empty(lane)
  if call('EXISTS', P .. ':r:' .. lane) == 1 then return false end
  local queue, entry, partition, name = split(lane)
  if name then
    local partitions = P .. ':lp:' .. queue .. '/' .. entry
    call('ZREM', partitions, partition)
    if call('EXISTS', partitions) == 1 then return true end
    limits().unshut(queue, entry)
  end
  call('ZREM', P .. ':lanes:' .. queue, entry)
  return true
end

-- Let a task wait until `due`.
local function delay(lane, id, due)
  local queue = queue_of(lane)
  local key = P .. ':due:' .. queue
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  call('ZADD', key, seconds(due), id)
  count(queue, 'delayed', 1)
  if not first or due < tonumber(first) then ring(queue) end -- who waits must wake up earlier now
end

-- Ready now, behind what is there, or delayed.
local function place(lane, id, due)
  if due and due > now then
    delay(lane, id, due)
  else
    line_up(lane, { digits(places(1)), id })
  end
end

-- What is due queues up behind what is ready, in the order of the due times, and what was shut until now is open.
-- Returns how many were due.
local function promote(queue, most)
  if call('EXISTS', P .. ':shut:' .. queue) == 1 then limits().reopen_due(queue, most) end
  local key = P .. ':due:' .. queue
  local ids = call('ZRANGEBYSCORE', key, '-inf', seconds(now), 'LIMIT', 0, most)
  if #ids == 0 then return 0 end
  call('ZREM', key, unpack(ids))
  count(queue, 'delayed', -#ids)
  local values, first = values_of(P .. ':m', ids), places(#ids)
  local lanes = {}
  for i, id in ipairs(ids) do
    if values[i] then
      local lane = lane_of(values[i])
      lanes[lane] = lanes[lane] or {}
      table.insert(lanes[lane], digits(first + i - 1))
      table.insert(lanes[lane], id)
    end
  end
  for lane, list in pairs(lanes) do line_up(lane, list) end
  return #ids
end
