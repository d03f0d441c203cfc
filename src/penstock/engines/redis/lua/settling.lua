-- Settlements: verdict, outcome and effects of what is still held.

-- Acks of one token, with nothing but an outcome each ('' for none). Returns 1 or 0 for each in `answers`.
local function ack(token, size, bytes, answers)
  local ids, records, h = {}, {}, P .. ':h:' .. token
  for n = 1, size do
    ids[n], records[n] = ARGV[cursor + 2 * n - 1], ARGV[cursor + 2 * n]
  end
  cursor = cursor + 2 * size
  local held, _, lane = values_of(h, ids), holder_of(token)
  local lost = 0
  for n = 1, size do
    if not held[n] then lost = lost + 1 end
    answers[#answers + 1] = held[n] and '1' or '0'
  end
  if lost == size or not lane then return end
  if lost > 0 then
    local some_ids, some_records = {}, {}
    bytes = 0
    for n = 1, size do
      if held[n] then
        some_ids[#some_ids + 1], some_records[#some_records + 1] = ids[n], records[n]
        bytes = bytes + call('HSTRLEN', P .. ':m', ids[n])
      end
    end
    ids, records = some_ids, some_records
  end
  many('HDEL', h, ids)
  unlease(lane, ids)
  finish(lane, ids, records, bytes)
  drop_if_empty(token)
end

local function retry_at(lane, id, due, value, charge)
  local extras = extra(id)
  call('HDEL', P .. ':pg', id)
  if value ~= '' then
    count(queue_of(lane), 'bytes', #lane + #value - call('HSTRLEN', P .. ':m', id))
    call('HSET', P .. ':m', id, lane .. value)
  end
  if extras.v then
    finish_revoked(lane, id)
    return
  end
  extras.r = 1
  if charge then extras.a = (extras.a or 0) + 1 end
  keep_extra(id, extras)
  place(lane, id, due)
end

local function join(id, index, value, size, is_json, head, tail, m)
  local key, closed = P .. ':j:' .. id, P .. ':jc:' .. id
  if call('EXISTS', closed) == 1 or call('HSETNX', key, index, value) == 0 then return end
  if call('HLEN', key) < size then
    call('EXPIRE', key, 30 * 86400)
    return
  end
  local all, list = call('HGETALL', key), {}
  local order = {}
  for i = 1, #all, 2 do order[#order + 1] = { tonumber(all[i]), all[i + 1] } end
  table.sort(order, function(a, b) return a[1] < b[1] end)
  local bytes = #order
  for i, one in ipairs(order) do
    list[i] = one[2]
    bytes = bytes + #one[2]
  end
  local body
  if bytes > 7 * 1048576 then -- MOST_GATHERED
    body = ''
  elseif is_json then
    body = '[' .. table.concat(list, ',') .. ']'
  else
    body = '\221' .. struct.pack('>I4', #list) .. table.concat(list)
  end
  call('DEL', key)
  call('SET', closed, '', 'EX', 86400)
  m.value = head .. '\198' .. struct.pack('>I4', #body) .. body .. tail
  follow_up(m)
end

-- Read and (where `lane` is given: the lease is held) apply one effect.
local function effect(lane, id)
  local kind = take()
  if kind == 'P' then
    local m = take_message()
    if lane then follow_up(m) end
  elseif kind == 'J' then
    local name, index, value, size, is_json = take(), take(), take(), take_number(), take() == '1'
    local head, tail, m = take(), take(), take_message()
    if lane then join(name, index, value, size, is_json, head, tail, m) end
  elseif kind == 'K' then
    local key = take()
    if lane then free_unique(lane, key, id) end
  else
    local key, deletes, value, version = take(), take() == '1', take(), take()
    if lane then put(key, not deletes and value, version) end
  end
end

-- Any settlement. Returns '1', or '0' when its lease is lost.
local function settle()
  local token, id, verdict = take(), take(), take()
  local when, value, charge, reason = take(), take(), take() == '1', take()
  local record = take()
  local has_outcome = record ~= ''
  local old_place = call('HGET', P .. ':h:' .. token, id)
  local lane
  if old_place then
    local _
    _, lane = holder_of(token)
  end
  if lane then
    call('HDEL', P .. ':h:' .. token, id)
    drop_if_empty(token)
    if verdict == 'L' then
      give_back(lane, id, old_place)
    else
      unlease(lane, { id })
      if verdict == 'A' then
        finish(lane, { id }, { record }, call('HSTRLEN', P .. ':m', id))
      elseif verdict == 'D' then
        bury(lane, { id }, { call('HGET', P .. ':m', id) }, { extra(id).a or 0 }, { record }, reason)
      else
        retry_at(lane, id, tonumber(when), value, charge)
      end
    end
    if has_outcome and (verdict == 'L' or verdict == 'R') then store({ id }, { record }) end
  end
  for _ = 1, take_number() do effect(lane, id) end
  return lane and '1' or '0'
end
