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

-- At the end of a script.
local function conclude()
  write_counts()
  if limits_made then limits_made.ring_reopened(ring) end
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
  local opening = call('ZRANGEBYSCORE', P .. ':shut:' .. queue, '-inf', seconds(now), 'LIMIT', 0, most)
  if #opening > 0 then limits().reopen_these(queue, opening) end
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
