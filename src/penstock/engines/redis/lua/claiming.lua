-- Reserving: 9 first, and within a priority the lanes (partitions) take turns.
local MOST_LOOKS = 1000 -- limited lanes that are looked at in vain by one step

-- What of `popped` (id, place, id, place…) fits into `room` bytes; the rest goes back. At least one if `must`.
local function fitting(lane, popped, room, must)
  local ids, kept, values, bytes, back = {}, {}, {}, 0, {}
  for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
  local found = values_of(P .. ':m', ids)
  for n, id in ipairs(ids) do
    local value = found[n]
    if value then
      if bytes + #value > room and not (must and #values == 0) or #back > 0 then
        back[#back + 1], back[#back + 2] = popped[2 * n], id
      else
        bytes = bytes + #value
        kept[#kept + 1], kept[#kept + 2] = id, popped[2 * n]
        values[#values + 1] = value
      end
    end
  end
  if #back > 0 then many('ZADD', P .. ':r:' .. lane, back) end
  return kept, values, bytes, #back > 0
end

local function attempts_of(lane, held)
  local attempts, ids = {}, {}
  if not rare then return attempts end
  for i = 1, #held, 2 do ids[#ids + 1] = held[i] end
  local extras = extras_of(ids)
  for i, id in ipairs(ids) do
    attempts[i] = extras[i] and extras[i].a or 0
    if extras[i] then free_uniques(lane, id, extras[i], 'start') end
  end
  return attempts
end

local function lease(token, worker, lane, held, seconds_long)
  many('HSET', P .. ':h:' .. token, held)
  call('HSET', P .. ':t', token, worker .. ' ' .. lane)
  call('ZADD', P .. ':leases', seconds(now + seconds_long), token)
  call('SADD', P .. ':wt:' .. worker, token)
  count(queue_of(lane), 'ready', -#held / 2)
  count(queue_of(lane), 'leased', #held / 2)
end

-- When the limit of a lane let some of it go, exactly.
local function let_go(lane)
  local _, _, _, key = split(lane)
  return key and string.format('%.17g', now)
end

-- Lease up to `limit` tasks; returns lists of token, held (id, place…), messages, attempts, and for limited lanes when they
-- were let go; and whether there may be more.
local function claim(nonce, want)
  local taken, left, room, looks = {}, want.limit, want.bytes, MOST_LOOKS
  local pauses = call('EXISTS', P .. ':paused') == 1
  for _, queue in ipairs(want.queues) do
    local lanes = P .. ':lanes:' .. queue
    local paused = pauses and call('SISMEMBER', P .. ':paused', queue) == 1
    while left > 0 and looks > 0 and not paused do
      local first = call('ZRANGE', lanes, 0, 0, 'WITHSCORES')
      if not first[1] then break end
      local entry, priority = first[1], tonumber(string.sub(first[1], 1, 1))
      local rivals = call('ZCOUNT', lanes, (9 - priority) * 1e15, '(' .. digits((10 - priority) * 1e15))
      local most, lane, held, values, bytes, full = math.ceil(left / rivals), queue .. '/' .. entry
      if string.find(entry, '/', 3, true) then
        lane, held, values, bytes, full = limits().take_some(queue, entry, most, room, #taken == 0, fitting)
      else
        held, values, bytes, full = fitting(lane, call('ZPOPMIN', P .. ':r:' .. lane, most), room, #taken == 0)
        close_if_empty(lane)
      end
      if rivals > 1 then call('ZADD', lanes, 'XX', turn(priority), entry) end
      if #values > 0 then
        local token = nonce .. '.' .. (#taken + 1)
        lease(token, want.worker, lane, held, want.lease)
        taken[#taken + 1] = { token, held, values, attempts_of(lane, held), let_go(lane) }
        left, room = left - #values, room - bytes
      else
        looks = looks - 1
      end
      if full then return taken end
    end
    if left == 0 then return taken end
  end
  return taken, looks == 0
end

-- What was claimed with this nonce, by a step whose answer was lost.
local function claimed(nonce)
  local taken, number = {}, 1
  while true do
    local token = nonce .. '.' .. number
    local _, lane = holder_of(token)
    if not lane then return taken end
    local held = call('HGETALL', P .. ':h:' .. token)
    local ids = {}
    for i = 1, #held, 2 do ids[#ids + 1] = held[i] end
    taken[number] = { token, held, values_of(P .. ':m', ids), attempts_of(lane, held), let_go(lane) }
    number = number + 1
  end
end
