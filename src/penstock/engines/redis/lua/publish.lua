-- Accept a batch: what is new fits whole, or nothing of it is added. ARGV: the bounds of queues that declare none, then
-- groups of plain messages, each of one lane (lane, count, id, value, id, value…), then messages with all their fields.
-- Answers: an empty list when all are accepted; else the answers in the order asked, and the full queue if any.
local most_tasks, most_bytes = take_number(), take_number()

local function take_groups()
  local groups = {}
  for i = 1, take_number() do
    local lane, size = take(), take_number()
    local ids, bytes = {}, 0
    for n = 1, size do
      ids[n] = ARGV[cursor + 2 * n - 1]
      bytes = bytes + #ARGV[cursor + 2 * n]
    end
    groups[i] = { lane = lane, ids = ids, bytes = bytes, from = cursor + 1 }
    cursor = cursor + 2 * size
  end
  return groups
end

local function all_new(groups)
  local dead = call('EXISTS', P .. ':dm', P .. ':rv') > 0
  for _, group in ipairs(groups) do
    local n = #group.ids
    if any(values_of(P .. ':m', group.ids), n) or any(values_of(P .. ':o', group.ids), n) then return false end
    if dead and (any(values_of(P .. ':dm', group.ids), n) or any(values_of(P .. ':rv', group.ids), n)) then return false end
  end
  return true
end

local function add_group(group)
  local queue, n, first = queue_of(group.lane), #group.ids, places(#group.ids)
  know_queue(queue)
  for i = group.from, group.from + 2 * n - 1, CHUNK do
    call('HSET', P .. ':m', unpack(ARGV, i, math.min(i + CHUNK - 1, group.from + 2 * n - 1)))
  end
  local list = {}
  for i = 1, n do list[2 * i - 1], list[2 * i] = first + i - 1, group.ids[i] end
  count(queue, 'enqueued', n)
  count(queue, 'bytes', group.bytes)
  line_up(group.lane, list)
end

local function one_by_one(groups)
  local messages = {}
  for _, group in ipairs(groups) do
    for n, id in ipairs(group.ids) do
      messages[#messages + 1] =
        { id = id, lane = group.lane, value = ARGV[group.from + 2 * n - 1], attempts = 0, guards = {} }
    end
  end
  return messages
end

-- The lowest priority of what is new in a queue.
local function lowest_of(news, queue)
  local lowest = 9
  for _, one in ipairs(news) do
    local its_queue, priority = string.match(one.lane, '^([^/]*/[^/]*)/(%d)')
    if its_queue == queue then lowest = math.min(lowest, tonumber(priority)) end
  end
  return lowest
end

-- The first queue that has no room for what is new in it, and makes none. Is there none, then there is room everywhere.
local function first_full(sums, news, gone)
  local room = {}
  for queue, sum in pairs(sums) do
    local full, lack
    if sum[3] then full, lack = overfull(queue, sum[1], sum[2], most_tasks, most_bytes) end
    if full then
      local priority = lack and lowest_of(news, queue)
      local victims = lack and shedding().plan(queue, lack[1], lack[2], lack[3], priority, gone)
      if not victims then return full end
      room[queue] = { victims, table.concat({ lack[1], full[4], full[3], priority }, ' ') }
    end
  end
  for queue, made in pairs(room) do shedding().shed(queue, made[1], made[2]) end
end

local function add_to(sums, lane, tasks, bytes)
  local queue = queue_of(lane)
  local sum = sums[queue] or { 0, 0, false }
  sums[queue] = { sum[1] + tasks, sum[2] + bytes, sum[3] or tasks > 0 }
end

local function publish_plain(groups)
  local sums = {}
  for _, group in ipairs(groups) do add_to(sums, group.lane, #group.ids, group.bytes) end
  local full = first_full(sums, groups, {})
  if full then return { { 'q' }, full } end
  for _, group in ipairs(groups) do add_group(group) end
  return {}
end

local function publish_each(messages)
  local answers, batch, sums, news = {}, { fresh = {}, held = {}, gone = {} }, {}, {}
  for i, m in ipairs(messages) do
    answers[i] = refusal(m, batch)
    if answers[i] == 'a' then
      news[#news + 1] = m
      add_to(sums, m.lane, 1, #m.value)
      for _, one in ipairs(m.displaced) do add_to(sums, one.lane, -1, -one.bytes) end
    end
  end
  local full = first_full(sums, news, batch.gone)
  for i, m in ipairs(messages) do
    if full then
      -- A repeat of a message of this very batch repeats something that is not there.
      local holder = string.match(answers[i], '^d(.*)$') or string.match(answers[i], '^c%d+ (.*)$')
      if answers[i] == 'a' or (holder and batch.fresh[holder]) then answers[i] = 'q' end
    elseif answers[i] == 'a' then
      enter(m)
    end
  end
  return { answers, full or {} }
end

local groups = take_groups()
local messages = {}
for i = 1, take_number() do messages[i] = take_message() end
local reply
if #messages == 0 and all_new(groups) then
  reply = publish_plain(groups)
else
  if #messages == 0 then messages = one_by_one(groups) end
  reply = publish_each(messages)
end
write_counts()
return reply
