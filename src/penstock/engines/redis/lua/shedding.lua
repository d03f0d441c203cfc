-- Making room in a full queue, as penstock/shedding.py has it; made when it is first needed.
local shedding_made
local function shedding()
  if shedding_made then return shedding_made end
  local MOST = 10000 -- tasks that one publish sheds
  local LANES = 256 -- lanes that are looked at; where priorities matter, of each
  local VAIN = 1000 -- tasks that are looked at, and spared
  local MANY = 100
  local NODE = '^' .. string.rep('[0-9a-f]', 32) .. '%.(.*)$'

  -- Of a stored message: the task's name, whether it was begun or is part of a canvas, and whether nobody wants to hear of
  -- its end. The bytes of the body are stepped over, since the server's cmsgpack knows no such type.
  local function read_message(value)
    local data, some = string.sub(value, string.find(value, ' ', 1, true) + 1), cmsgpack.unpack_limit
    local at, _, task = some(data, 2, 3)
    local kind = string.byte(data, at + 1) - 0xc3 -- its size has 1, 2 or 4 bytes
    local size = struct.unpack(({ 'B', '>H', '>I4' })[kind], data, at + 2)
    local guards, _, _, _, _, _, _, _, retries, attempts = some(data, 11, at + 1 + 2 ^ (kind - 1) + size)
    local is_begun, ignored = retries > 0 or attempts > 0, false
    local headers = guards + 1
    if string.byte(data, guards + 1) ~= 0xc0 then -- options
      local _
      headers, _, _, ignored = some(data, 6, guards + 1)
      if string.byte(data, headers + 1) ~= 0xc0 then return task, true end -- its place in a graph
      headers = headers + 1
    end
    local _, found = some(data, 1, headers)
    for name in pairs(type(found) == 'table' and found or {}) do
      if string.sub(name, 1, 9) == 'penstock-' then is_begun = true end
    end
    return task, is_begun, ignored
  end

  -- The task's name, and whether its end is told, if it may go.
  local function may_go(id, value)
    local node = string.match(id, NODE)
    if node and (node == 'begin' or (#node < 10 and string.find(node, '^%d+$'))) then return nil end
    local extras = extra(id)
    if extras.b or extras.r or (extras.a or 0) > 0 then return nil end
    local is_whole, task, is_begun, ignored = pcall(read_message, value)
    if not is_whole or type(task) ~= 'string' or is_begun then return nil end
    return task, not ignored
  end

  -- The lanes of these priorities that have something, open or shut.
  local function lanes_of(queue, lowest, highest)
    local lanes = {}
    local function add(entry)
      local names = { entry }
      if string.find(entry, '/', 3, true) then
        local most = LANES - #lanes
        names = most > 0 and call('ZRANGE', P .. ':lp:' .. queue .. '/' .. entry, 0, most - 1) or {}
        for i, partition in ipairs(names) do names[i] = string.sub(entry, 1, 2) .. partition .. string.sub(entry, 3) end
      end
      for _, name in ipairs(names) do lanes[#lanes + 1] = { name = queue .. '/' .. name, from = 0, step = 1, at = 1, found = {} } end
    end
    local first, last = digits((9 - highest) * 1e15), '(' .. digits((10 - lowest) * 1e15)
    for _, entry in ipairs(call('ZRANGEBYSCORE', P .. ':lanes:' .. queue, first, last, 'LIMIT', 0, LANES)) do add(entry) end
    for _, entry in ipairs(call('ZRANGE', P .. ':shut:' .. queue, 0, LANES - 1)) do
      local priority = tonumber(string.sub(entry, 1, 1))
      if priority >= lowest and priority <= highest then add(entry) end
    end
    return lanes
  end

  -- The place of the next task of a lane.
  local function place_in(lane, newest)
    if lane.at > #lane.found and not lane.over then
      local last = lane.from + lane.step - 1
      lane.found = call(newest and 'ZREVRANGE' or 'ZRANGE', P .. ':r:' .. lane.name, lane.from, last, 'WITHSCORES')
      lane.over = #lane.found < 2 * lane.step
      lane.from, lane.step, lane.at = last + 1, MANY, 1
    end
    return tonumber(lane.found[lane.at + 1])
  end

  -- The lane whose next task is the oldest, or the newest.
  local function next_lane(lanes, newest)
    local found, best
    for _, lane in ipairs(lanes) do
      local place = place_in(lane, newest)
      if place and (not best or (newest and place > best) or (not newest and place < best)) then
        found, best = lane, place
      end
    end
    return found
  end

  -- Which tasks make room for so many tasks and bytes, of `priority`; nil: none can. Those of `gone` go anyway.
  local function plan(queue, policy, tasks, bytes, priority, gone)
    local by_priority = policy == 'shed-lowest-priority'
    local victims, vain = {}, 0
    for rank = 0, by_priority and priority - 1 or 0 do
      local lanes = lanes_of(queue, rank, by_priority and rank or 9)
      while tasks > 0 or bytes > 0 do
        local lane = next_lane(lanes, by_priority)
        if not lane then break end
        local id = lane.found[lane.at]
        lane.at = lane.at + 2
        local value = not gone[id] and call('HGET', P .. ':m', id)
        local task, is_told
        if value then task, is_told = may_go(id, value) end
        if task then
          victims[#victims + 1] = { lane = lane.name, id = id, value = value, task = is_told and task }
          tasks, bytes = tasks - 1, bytes - #value
        else
          vain = vain + 1
        end
        if vain > VAIN or #victims > MOST then return nil end
      end
    end
    return tasks <= 0 and bytes <= 0 and victims or nil
  end

  -- Move them to the dead letters; `mark` says why, and is put into words by who reads it (see pages.py).
  local function shed(queue, victims, mark)
    local lanes = {}
    for _, one in ipairs(victims) do
      local mine = lanes[one.lane] or { ids = {}, values = {}, attempts = {}, records = {} }
      local n = #mine.ids + 1
      mine.ids[n], mine.values[n], mine.attempts[n] = one.id, one.value, 0
      mine.records[n] = one.task and table.concat({ 'S' .. seconds(now), mark, one.lane, one.task }, ' ') or ''
      lanes[one.lane] = mine
    end
    for lane, mine in pairs(lanes) do
      many('ZREM', P .. ':r:' .. lane, mine.ids)
      close_if_empty(lane)
      bury(lane, mine.ids, mine.values, mine.attempts, mine.records, '', mark)
    end
    count(queue, 'ready', -#victims)
    count(queue, 'shed', #victims)
  end

  shedding_made = { plan = plan, shed = shed }
  return shedding_made
end
