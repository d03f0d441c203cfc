-- Outcomes outside of settlements. ARGV: the verb, and what it needs.
local verb = take()

-- The lists of ids and records that follow, as pairs.
local function take_pairs()
  local ids, records = {}, {}
  for i = 1, take_number() do
    ids[i], records[i] = take(), take()
  end
  return ids, records
end

local function has_ended(id)
  return call('HSTRLEN', P .. ':o', id) > 0 or call('HEXISTS', P .. ':dm', id) == 1
end

local verbs = { fetch = views.fetch }

-- Two outcomes of one task may come together: the first stays.
function verbs.store()
  local ids, records = take_pairs()
  local place, first_ids, first_records, answers = {}, {}, {}, {}
  for i, id in ipairs(ids) do
    if not place[id] then
      place[id] = i
      first_ids[#first_ids + 1], first_records[#first_records + 1] = id, records[i]
    end
    answers[i] = 0
  end
  for i, fresh in ipairs(store(first_ids, first_records)) do
    if fresh then answers[place[first_ids[i]]] = 1 end
  end
  return answers
end

-- The client is told of these, in the hash `key` of id -> channels.
local function add_channel(key, ids, client)
  local channels, new = values_of(key, ids), {}
  for i, id in ipairs(ids) do
    if not channels[i] then
      new[#new + 1], new[#new + 2] = id, client
    elseif not string.find(' ' .. channels[i] .. ' ', ' ' .. client .. ' ', 1, true) then
      new[#new + 1], new[#new + 2] = id, channels[i] .. ' ' .. client
    end
  end
  many('HSET', key, new)
end

local function remove_channel(key, ids, client)
  for i, channels in ipairs(values_of(key, ids)) do
    local others = {}
    for other in string.gmatch(channels or '', '%S+') do
      if other ~= client then others[#others + 1] = other end
    end
    if #others > 0 then
      call('HSET', key, ids[i], table.concat(others, ' '))
    elseif channels then
      call('HDEL', key, ids[i])
    end
  end
end

-- The outcomes that are there of these; who asks is told of the others when they are.
function verbs.listen()
  local client, found, missing = take(), {}, {}
  local ids = take_list()
  for i, record in ipairs(values_of(P .. ':o', ids)) do
    if record and record ~= '' then
      found[#found + 1], found[#found + 2] = ids[i], record
    else
      missing[#missing + 1] = ids[i]
    end
  end
  add_channel(P .. ':in', missing, client)
  return found
end

function verbs.unlisten()
  local client = take()
  remove_channel(P .. ':in', take_list(), client)
  return 1
end

-- An id whose outcome is forgotten is still known, so that a repeat is recognised.
function verbs.forget()
  for _, id in ipairs(take_list()) do
    local size = call('HSTRLEN', P .. ':o', id)
    if size > 0 then
      call('HSET', P .. ':o', id, '')
      call('DECRBY', P .. ':ob', size)
    end
    call('DECRBY', P .. ':ob', streams().drop({ id }))
  end
  return 1
end

function verbs.note()
  local id, progress = take(), take()
  local value = call('HGET', P .. ':m', id)
  if not value then return 0 end
  if revoking().waits(lane_of(value), id) then return 0 end
  call('HSET', P .. ':pg', id, progress)
  return 1
end

-- Add parts: 1, or 0 where an outcome is stored, or a later run has added. ARGV: bounds, id, run, mark, packed parts.
function verbs.append()
  local most, most_bytes, id, run, mark = take_number(), take_number(), take(), take_number(), take()
  local records, list = take_list(), P .. ':pl:' .. id
  if has_ended(id) then return 0 end
  local stream = streams().of(id)
  if not stream then
    local is_here = call('HEXISTS', P .. ':m', id) == 1 or call('HEXISTS', P .. ':o', id) == 1
    if not is_here then call('RPUSH', P .. ':od', cmsgpack.pack({ now, id })) end
    stream = { run = run, first = 0, last = 0, bytes = 0, listed = not is_here }
  end
  if run < stream.run then return 0 end
  if mark == stream.mark then return 1 end
  local before = stream.bytes
  many('RPUSH', list, records)
  for _, record in ipairs(records) do stream.bytes = stream.bytes + #record end
  stream.last = stream.last + #records
  local kept = stream.last - stream.first
  while kept > most or (stream.bytes > most_bytes and kept > 1) do
    stream.bytes = stream.bytes - #call('LPOP', list)
    kept = kept - 1
  end
  stream.run, stream.mark, stream.first, stream.added = run, mark, stream.last - kept, now
  streams().keep(id, stream)
  if call('INCRBY', P .. ':ob', stream.bytes - before) > KEEP_BYTES then expire_results(4) end
  streams().tell(id)
  return 1
end

-- First and next index, whether no more come, where those that follow begin, and up to `limit` parts.
function verbs.parts()
  local id, offset, limit = take(), take_number(), take_number()
  local stream = streams().of(id)
  if not stream then return { 0, 0, (has_ended(id) or call('HEXISTS', P .. ':m', id) == 0) and 1 or 0, 0, {} } end
  if offset < 0 then offset = offset + stream.last end
  local from = math.max(offset, stream.first)
  local place, found = from - stream.first, {}
  if limit > 0 and from < stream.last then found = call('LRANGE', P .. ':pl:' .. id, place, place + limit - 1) end
  return { stream.first, stream.last, has_ended(id) and 1 or 0, from, found }
end

-- Tell the client whenever parts of these may have come; returns those that have some, or have ended.
function verbs.attend()
  local client, ids, found = take(), take_list(), {}
  add_channel(P .. ':pi', ids, client)
  for _, id in ipairs(ids) do
    if streams().of(id) or has_ended(id) then found[#found + 1] = id end
  end
  return found
end

function verbs.unattend()
  local client = take()
  remove_channel(P .. ':pi', take_list(), client)
  return 1
end

local reply = verbs[verb]()
write_counts()
return reply
