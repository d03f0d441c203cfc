-- What all scripts share. KEYS[1] is the prefix of all keys, with a hash tag. ARGV: how long results are kept (seconds),
-- how many bytes of them, then what the script asks for, read in order by `take`. Names from outside are parts of keys
-- only in their escaped form (see names.py): a queue is `namespace/queue`, a lane `namespace/queue/priority/partition`.
--   :m  id -> lane, a space, the packed message        :x   id -> the rare: attempts, retried, revoked, unique keys
--   :o  id -> outcome ('' when there is none)           :od  list of what ended, oldest first      :ob its bytes
--   :q:queue counters and bounds    :lanes:queue the lanes that have something    :r:lane ready ids by place
--   :due:queue delayed ids by due time     :h:token what a claim holds, id -> place     :t token -> worker, lane
--   (A lane that is limited has the key of its limit behind it: see limits.lua.)
--   :leases token -> until     :wt:worker its tokens     :wait:queue who waits     :in id -> channels to tell
local call, P = redis.call, KEYS[1]
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local cursor = 0
local CHUNK = 1000 -- arguments of one unpack(); Lua's stack has room for some thousands

local function take()
  cursor = cursor + 1
  return ARGV[cursor]
end

local function take_number() return tonumber((take())) end

local KEEP, KEEP_BYTES = take_number(), take_number()

-- Large numbers as text; tostring() would round them.
local function digits(n) return string.format('%.0f', n) end

local function seconds(n) return string.format('%.6f', n) end

local function take_list()
  local list = {}
  for i = 1, take_number() do list[i] = take() end
  return list
end

-- Run a command on a list of any length; returns the sum of its answers.
local function many(command, key, list)
  local sum = 0
  for i = 1, #list, CHUNK do
    local answer = call(command, key, unpack(list, i, math.min(i + CHUNK - 1, #list)))
    if type(answer) == 'number' then sum = sum + answer end
  end
  return sum
end

-- The answers of HMGET to a list of any length.
local function values_of(key, ids)
  if #ids <= CHUNK then return #ids == 0 and {} or call('HMGET', key, unpack(ids)) end
  local values = {}
  for i = 1, #ids, CHUNK do
    for _, value in ipairs(call('HMGET', key, unpack(ids, i, math.min(i + CHUNK - 1, #ids)))) do
      values[#values + 1] = value
    end
  end
  return values
end

local function any(list, count)
  for i = 1, count do
    if list[i] then return true end
  end
  return false
end

-- Places in lanes: microseconds since 1970, each given once, so that they tell ages, too. Returns the first of `count`.
local function places(count)
  local first = tonumber(time[1]) * 1e6 + tonumber(time[2])
  local last = tonumber(call('GET', P .. ':seq') or 0)
  if first <= last then first = last + 1 end
  call('SET', P .. ':seq', digits(first + count - 1))
  return first
end

-- Counters are changed once per queue and script.
local counts = {}
local function count(queue, field, by)
  local mine = counts[queue]
  if not mine then
    mine = {}
    counts[queue] = mine
  end
  mine[field] = (mine[field] or 0) + by
end

local limits, limits_made -- see limits.lua

-- At the end of a script.
local function write_counts()
  for queue, mine in pairs(counts) do
    for field, by in pairs(mine) do
      if by ~= 0 then call('HINCRBY', P .. ':q:' .. queue, field, by) end
    end
  end
  counts = {}
  if limits_made then limits_made.ring_reopened() end
end

local function know_queue(queue)
  if call('HSETNX', P .. ':q:' .. queue, 'opened', seconds(now)) == 1 then call('SADD', P .. ':qs', queue) end
end

local function queue_of(lane) return (string.match(lane, '^([^/]*/[^/]*)/')) end

local function namespace_of(lane) return (string.match(lane, '^([^/]*)/')) end

-- What a limited lane's messages cost stands between, after semicolons.
local function lane_of(value) return (string.match(value, '^[^ ;]*')) end

-- What only few tasks have, as a table; the hash is mostly empty, which is asked once.
local rare = call('HLEN', P .. ':x') > 0
local function extras_of(ids)
  if not rare then return {} end
  local found = values_of(P .. ':x', ids)
  for i = 1, #ids do found[i] = found[i] and cmsgpack.unpack(found[i]) end
  return found
end

local function extra(id) return extras_of({ id })[1] or {} end

local function keep_extra(id, what)
  rare = true
  call('HSET', P .. ':x', id, cmsgpack.pack(what))
end
