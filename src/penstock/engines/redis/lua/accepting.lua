-- Accepting messages one by one: repeats and guards first, then the bounds for all that is new, then the tasks.

local function take_message()
  local m = { id = take(), lane = take(), value = take(), due = tonumber((take())), attempts = take_number(), guards = {} }
  for i = 1, take_number() do
    local kind = take()
    if kind == 'U' then
      m.guards[i] = { kind, take(), take(), tonumber((take())), take() }
      m.guards[i].takes_over = m.guards[i][5] == 'replace' or m.guards[i][5] == 'cancel'
    elseif kind ~= 'L' then
      m.guards[i] = { kind, take(), take() }
    else
      m.guards[i] = { kind }
    end
  end
  return m
end

local function is_known(id)
  return call('HEXISTS', P .. ':m', id) == 1 or call('HEXISTS', P .. ':o', id) == 1 or call('HEXISTS', P .. ':dm', id) == 1
end

-- Who holds a key, as it would be with the `batch` so far: messages that are `fresh`, keys `held` (false: free), tasks `gone`.
local function holder_in(batch, name)
  if batch.held[name] ~= nil then return batch.held[name] end
  return call('GET', name)
end

-- The answer to what is known, or held off by a guard. `m.displaced`: what it would displace.
local function refusal(m, batch)
  if batch.fresh[m.id] or is_known(m.id) then return 'd' .. m.id end
  for i, guard in ipairs(m.guards) do
    local kind, key = guard[1], guard[2]
    if kind == 'F' then
      if not is_current(key, guard[3]) then return 'f' .. i end
    elseif kind == 'D' then
      local name = P .. ':dd:' .. namespace_of(m.lane) .. '/' .. key
      local holder = holder_in(batch, name)
      if holder then return 'd' .. holder end
    elseif kind == 'U' then
      local name = unique_key(m.lane, key)
      local holder = holder_in(batch, name)
      if holder and not guard.takes_over then return 'c' .. i .. ' ' .. holder end
    end
  end
  batch.fresh[m.id], m.displaced = m, {}
  for _, guard in ipairs(m.guards) do
    if guard[1] == 'D' then batch.held[P .. ':dd:' .. namespace_of(m.lane) .. '/' .. guard[2]] = m.id end
    if guard[1] == 'U' then
      local name = unique_key(m.lane, guard[2])
      local holder = holder_in(batch, name)
      if holder and holder ~= m.id then revoking().plan_displacement(batch, m, holder) end
      batch.held[name] = m.id
    end
  end
  return 'a'
end

local function enter(m)
  local queue, uniques = queue_of(m.lane), {}
  for _, guard in ipairs(m.guards) do
    local holder = guard.takes_over and call('GET', unique_key(m.lane, guard[2]))
    if holder then revoking().displace(holder, guard[5]) end
  end
  for _, guard in ipairs(m.guards) do
    if guard[1] == 'D' then hold(P .. ':dd:' .. namespace_of(m.lane) .. '/' .. guard[2], m.id, tonumber(guard[3])) end
    if guard[1] == 'U' then
      hold(unique_key(m.lane, guard[2]), m.id, guard[4])
      uniques[#uniques + 1] = { guard[2], guard[3], guard[4] or false }
    end
  end
  if #uniques > 0 or m.attempts > 0 then keep_extra(m.id, { a = m.attempts, u = uniques }) end
  know_queue(queue)
  call('HSET', P .. ':m', m.id, m.value)
  count(queue, 'enqueued', 1)
  count(queue, 'bytes', #m.value)
  local _, _, _, name = split(m.lane)
  if name then limits().renew(name, m.value) end
  if call('HEXISTS', P .. ':rv', m.id) == 1 then
    finish_revoked(m.lane, m.id)
  else
    place(m.lane, m.id, m.due)
  end
end

-- Accept what follows from work that is here: no bound refuses it.
local function follow_up(m)
  local answer = refusal(m, { fresh = {}, held = {}, gone = {} })
  if answer == 'a' then enter(m) end
  return answer
end

-- The bound that so many more tasks and bytes would pass; and, if the queue sheds, how, and what must leave it.
local function overfull(queue, tasks, bytes, most_tasks, most_bytes)
  local q = call('HMGET', P .. ':q:' .. queue, 'ready', 'leased', 'delayed', 'bytes', 'length', 'size', 'settled', 'opened', 'overflow')
  local depth = (tonumber(q[1]) or 0) + (tonumber(q[2]) or 0) + (tonumber(q[3]) or 0)
  local present, length, size = tonumber(q[4]) or 0, tonumber(q[5]) or most_tasks, tonumber(q[6]) or most_bytes
  local full
  local rate = { q[7] or '0', q[8] and seconds(now - tonumber(q[8])) or '0' }
  if depth + tasks > length then
    full = { queue, digits(depth), digits(length), 'tasks', rate[1], rate[2] }
  elseif present + bytes > size then
    full = { queue, digits(present), digits(size), 'bytes', rate[1], rate[2] }
  end
  if not full or not q[9] or tasks > length or bytes > size then return full end
  return full, { q[9], math.min(tasks, depth + tasks - length), math.min(bytes, present + bytes - size) }
end
