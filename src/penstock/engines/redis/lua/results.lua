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

-- The outcomes that are there of these; who asks is told of the others when they are.
function verbs.listen()
  local client, found = take(), {}
  local ids = take_list()
  local records, channels = values_of(P .. ':o', ids), values_of(P .. ':in', ids)
  local new = {}
  for i, id in ipairs(ids) do
    if records[i] and records[i] ~= '' then
      found[#found + 1], found[#found + 2] = id, records[i]
    elseif not channels[i] then
      new[#new + 1], new[#new + 2] = id, client
    elseif not string.find(' ' .. channels[i] .. ' ', ' ' .. client .. ' ', 1, true) then
      new[#new + 1], new[#new + 2] = id, channels[i] .. ' ' .. client
    end
  end
  many('HSET', P .. ':in', new)
  return found
end

function verbs.unlisten()
  local client = take()
  local ids = take_list()
  for i, channels in ipairs(values_of(P .. ':in', ids)) do
    local others = {}
    for other in string.gmatch(channels or '', '%S+') do
      if other ~= client then others[#others + 1] = other end
    end
    if #others > 0 then
      call('HSET', P .. ':in', ids[i], table.concat(others, ' '))
    elseif channels then
      call('HDEL', P .. ':in', ids[i])
    end
  end
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
  end
  return 1
end

function verbs.note()
  local id, progress = take(), take()
  local value = call('HGET', P .. ':m', id)
  if not value then return 0 end
  if waits(lane_of(value), id) then return 0 end
  call('HSET', P .. ':pg', id, progress)
  return 1
end

local reply = verbs[verb]()
conclude()
return reply
