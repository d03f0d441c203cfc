-- How tasks end: outcomes are written once, told, and forgotten by age and bytes.

local OVERHEAD = 100 -- bytes that Redis itself needs for an entry, about

-- Forget the oldest outcomes: those over the age, or over the bytes; at most `most` batches of them.
local function expire_results(most)
  local key, gone = P .. ':od', 0
  local stale = call('EXISTS', P .. ':stale') == 1
  for _ = 1, most do
    local oldest = call('LINDEX', key, 0)
    if not oldest then return gone end
    local batch = cmsgpack.unpack(oldest)
    local over = tonumber(call('GET', P .. ':ob') or 0) > KEEP_BYTES and call('LLEN', key) > 1
    if not over and batch[1] + KEEP > now then return gone end
    call('LPOP', key)
    local ids, bytes = {}, 0
    for i = 2, #batch do
      -- What went on after its end has ended twice: this was its first end.
      if stale and call('HEXISTS', P .. ':stale', batch[i]) == 1 then
        if call('HINCRBY', P .. ':stale', batch[i], -1) == 0 then call('HDEL', P .. ':stale', batch[i]) end
      else
        ids[#ids + 1] = batch[i]
      end
    end
    local records = values_of(P .. ':o', ids)
    for i, record in ipairs(records) do
      if record then bytes = bytes + #record + #ids[i] + OVERHEAD end
    end
    if call('EXISTS', P .. ':ps') == 1 then bytes = bytes + streams().expire(ids, records, over) end
    if #ids > 0 then many('HDEL', P .. ':o', ids) end
    call('DECRBY', P .. ':ob', bytes)
    gone = gone + #ids
  end
  return gone
end

-- A task that has ended, with the outcome `old`, goes on.
local function reopen(id, old)
  call('HDEL', P .. ':o', id)
  call('HINCRBY', P .. ':stale', id, 1)
  call('DECRBY', P .. ':ob', #old + #id + OVERHEAD)
end

-- One message per client that waits for some of these, with the outcomes in it.
local function tell(ids, records)
  local channels = values_of(P .. ':in', ids)
  local letters, told = {}, {}
  for i, id in ipairs(ids) do
    if channels[i] and records[i] ~= '' then
      told[#told + 1] = id
      for client in string.gmatch(channels[i], '%S+') do
        letters[client] = letters[client] or {}
        table.insert(letters[client], struct.pack('>I4', #id) .. id .. struct.pack('>I4', #records[i]) .. records[i])
      end
    end
  end
  if #told == 0 then return end
  many('HDEL', P .. ':in', told)
  for client, list in pairs(letters) do call('PUBLISH', P .. ':c:' .. client, 'r' .. table.concat(list)) end
end

-- Write outcomes; the first of a task stays. Returns for each whether it was written.
local function store(ids, records, was_known)
  local present = was_known or values_of(P .. ':o', ids)
  local batch, list, fresh, bytes = { now }, {}, {}, 0
  for i, id in ipairs(ids) do
    fresh[i] = not present[i] or (present[i] == '' and records[i] ~= '')
    if fresh[i] then
      list[#list + 1], list[#list + 2] = id, records[i]
      bytes = bytes + #records[i]
      if not present[i] then -- else it has its place in the list of what ended
        batch[#batch + 1] = id
        bytes = bytes + #id + OVERHEAD
      end
    end
  end
  if #list == 0 then return fresh end
  many('HSET', P .. ':o', list)
  if #batch > 1 then call('RPUSH', P .. ':od', cmsgpack.pack(batch)) end
  if call('INCRBY', P .. ':ob', bytes) > KEEP_BYTES then expire_results(4) end
  if call('EXISTS', P .. ':in', P .. ':pi', P .. ':ps') > 0 then
    if call('EXISTS', P .. ':ps') == 1 then streams().unlist(batch) end
    local new_ids, new_records = {}, {}
    for i, id in ipairs(ids) do
      if fresh[i] then new_ids[#new_ids + 1], new_records[#new_records + 1] = id, records[i] end
    end
    tell(new_ids, new_records)
    for i, id in ipairs(new_ids) do
      if new_records[i] ~= '' then streams().tell(id) end
    end
  end
  return fresh
end

-- Tasks of one lane leave for good; they are in no lane and no claim any more.
local function finish(lane, ids, records, bytes)
  many('HDEL', P .. ':m', ids)
  if rare then
    local extras = extras_of(ids)
    for i, id in ipairs(ids) do free_uniques(lane, id, extras[i]) end
    many('HDEL', P .. ':x', ids)
  end
  if call('EXISTS', P .. ':pg') == 1 then many('HDEL', P .. ':pg', ids) end
  store(ids, records)
  count(queue_of(lane), 'settled', #ids)
  count(queue_of(lane), 'bytes', -bytes)
end

local function revoked(lane) return 'V' .. seconds(now) .. ' ' .. lane end

local function finish_revoked(lane, id)
  finish(lane, { id }, { revoked(lane) }, call('HSTRLEN', P .. ':m', id))
end
