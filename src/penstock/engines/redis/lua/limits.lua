-- Limited lanes. One has a fifth part, the key of its limit. Among the lanes of a queue, `priority//key` stands for all
-- partitions of that key, which take turns among themselves. What may not go yet is not among them, but shut: until a
-- moment, or (without an end) until a lease of the key ends.
--   :l:namespace/key the limiter     :ll:namespace/key the ids that are leased     :lp:queue/priority//key its partitions
--   :shut:queue what is shut, by the moment          :lw:namespace/key the same, of all queues
--   :alarm:queue when and whom the next moment wakes
local LINGER = 3600 -- seconds for which a limiter without debts is remembered; later, a message that waits tells it again
local SPARE = 0.5 -- seconds after which others look for what somebody should have woken up for

-- The queue of a lane, and what stands for it there; if that is limited, its partition, and its namespace and key.
local function split(lane)
  local queue, entry = string.match(lane, '^([^/]*/[^/]*)/(.*)$')
  if not string.find(entry, '/', 3, true) then return queue, entry end
  local partition, key = string.match(entry, '^./([^/]*)/(.*)$')
  return queue, string.sub(entry, 1, 1) .. '//' .. key, partition, namespace_of(lane) .. '/' .. key
end

local function limiter_of(queue, entry) return namespace_of(queue .. '/') .. '/' .. string.sub(entry, 4) end

-- Cost, rate, burst and concurrency, as the message in `value` has them.
local function terms_of(value)
  local cost, rate, burst, concurrency = string.match(value, '^[^ ;]*;([^ ;]*);([^ ;]*);([^ ;]*);([^ ;]*) ')
  return tonumber(cost) or 1, tonumber(rate), tonumber(burst) or 1, tonumber(concurrency)
end

local function limiter_at(name)
  local found = call('HMGET', P .. ':l:' .. name, 'rate', 'burst', 'concurrency', 'full', 'cost')
  local limiter = { rate = tonumber(found[1] or ''), burst = tonumber(found[2] or '') or 1 }
  limiter.concurrency, limiter.full = tonumber(found[3] or ''), tonumber(found[4] or '') or 0
  limiter.cost = tonumber(found[5] or '') or 1 -- of the last one that went
  return limiter, found[4] and true or false
end

local function keep_limiter(name, limiter)
  local key = P .. ':l:' .. name
  local function text(number) return number and string.format('%.17g', number) or '' end
  call('HSET', key, 'rate', text(limiter.rate), 'burst', text(limiter.burst), 'concurrency', text(limiter.concurrency),
    'full', text(limiter.full), 'cost', text(limiter.cost or 1))
  call('EXPIRE', key, digits(math.ceil(math.max(0, limiter.full - now) + LINGER)))
end

-- How many of a usual cost may go now, and one more where a rate tells when that may.
local function likely_count(limiter, leased)
  local most = limiter.concurrency and limiter.concurrency - leased or math.huge
  if limiter.rate then
    local units = limiter.burst - (math.max(limiter.full, now - LAG) - now) * limiter.rate
    most = math.min(most, math.max(0, math.floor(units / limiter.cost)) + 1)
  end
  return most
end

local function shut(queue, entry, moment)
  local score = moment and seconds(moment) or '+inf'
  call('ZREM', P .. ':lanes:' .. queue, entry)
  call('ZADD', P .. ':shut:' .. queue, score, entry)
  call('ZADD', P .. ':lw:' .. limiter_of(queue, entry), score, queue .. '/' .. entry)
end

local function unshut(queue, entry)
  call('ZREM', P .. ':shut:' .. queue, entry)
  call('ZREM', P .. ':lw:' .. limiter_of(queue, entry), queue .. '/' .. entry)
end

local function turn(priority) return (9 - priority) * 1e15 + call('INCR', P .. ':turn') end

local reopened = {} -- queues

local function open(queue, entry)
  call('ZADD', P .. ':lanes:' .. queue, 'NX', turn(tonumber(string.sub(entry, 1, 1))), entry)
  reopened[queue] = true
end

-- What of this key is shut (from the score `from` on) is looked at again.
local function reopen(name, from)
  for _, one in ipairs(call('ZRANGEBYSCORE', P .. ':lw:' .. name, from, '+inf')) do
    local queue, entry = string.match(one, '^([^/]*/[^/]*)/(.*)$')
    unshut(queue, entry)
    open(queue, entry)
  end
end

local function reopen_due(queue, most)
  for _, entry in ipairs(call('ZRANGEBYSCORE', P .. ':shut:' .. queue, '-inf', seconds(now), 'LIMIT', 0, most)) do
    unshut(queue, entry)
    open(queue, entry)
  end
end

-- When `waiter` looks again for what of a queue is shut until `moment`. One of those who wait wakes up for it; the others
-- look later, in case that one is gone.
local function alarm(queue, moment, waiter)
  if moment == math.huge then return moment end
  local key = P .. ':alarm:' .. queue
  local at, who = string.match(call('GET', key) or '', '^(%S+) (.*)$')
  at = tonumber(at or '')
  if at and who ~= waiter and at > now and at <= moment + GRAIN then return moment + SPARE end
  call('SET', key, seconds(moment) .. ' ' .. waiter, 'PX', digits(math.ceil(math.max(1, (moment - now) * 1000))))
  return moment
end

-- Who has something to do now wakes up for nothing.
local function drop_alarm(queue, waiter)
  local key = P .. ':alarm:' .. queue
  if string.match(call('GET', key) or '', ' (.*)$') == waiter then call('DEL', key) end
end

-- What a new message says of its key holds for all.
local told = {}
local function renew(name, value)
  local terms = string.match(value, '^[^ ;]*;[^ ;]*;([^ ]*) ')
  if told[name] == terms then return end
  told[name] = terms
  local _, rate, burst, concurrency = terms_of(value)
  local old = limiter_at(name)
  local new = renewed(old, rate, burst, concurrency, now)
  new.cost = old.cost
  keep_limiter(name, new)
  if old.rate ~= rate or old.burst ~= burst or old.concurrency ~= concurrency then reopen(name, '-inf') end
end

-- Tasks of one lane are leased no more. (They are, by `lease` in claiming.lua; nothing else counts them.)
local function unlease(lane, ids)
  local queue, _, _, name = split(lane)
  count(queue, 'leased', -#ids)
  if not name then return end
  many('SREM', P .. ':ll:' .. name, ids)
  reopen(name, '+inf')
end
