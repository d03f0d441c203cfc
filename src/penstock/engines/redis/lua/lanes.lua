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

-- Let tasks wait in their lane for a worker. `pairs` = place, id, place, id…
local function line_up(lane, places_and_ids)
  local queue, suffix = queue_of(lane), string.match(lane, '^[^/]*/[^/]*/(.*)$')
  if call('EXISTS', P .. ':r:' .. lane) == 0 then
    call('ZADD', P .. ':lanes:' .. queue, turn(tonumber(string.sub(suffix, 1, 1))), suffix)
  end
  many('ZADD', P .. ':r:' .. lane, places_and_ids)
  count(queue, 'ready', #places_and_ids / 2)
  ring(queue)
end

local function close_if_empty(lane)
  if call('EXISTS', P .. ':r:' .. lane) == 0 then
    call('ZREM', P .. ':lanes:' .. queue_of(lane), (string.match(lane, '^[^/]*/[^/]*/(.*)$')))
    return true
  end
  return false
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

-- What is due queues up behind what is ready, in the order of the due times. Returns how many.
local function promote(queue, most)
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
