-- Limited lanes. One has a fifth part, the key of its limit. Among the lanes of a queue, `priority//key` stands for all
-- partitions of that key, which take turns among themselves. What may not go yet is not among them, but shut: until a
-- moment, or (without an end) until a lease of the key ends.
--   :l:namespace/key the limiter     :ll:namespace/key the ids that are leased     :lp:queue/priority//key its partitions
--   :shut:queue what is shut, by the moment          :lw:namespace/key the same, of all queues
--   :alarm:queue when and whom the next moment wakes
-- What only limited lanes need is made when it is first needed: to make a function takes as long as a command.

local function turn(priority) return (9 - priority) * 1e15 + call('INCR', P .. ':turn') end

-- The queue of a lane, and what stands for it there; if that is limited, its partition, and its namespace and key.
local function split(lane)
  local queue, entry = string.match(lane, '^([^/]*/[^/]*)/(.*)$')
  if not string.find(entry, '/', 3, true) then return queue, entry end
  local partition, key = string.match(entry, '^./([^/]*)/(.*)$')
  return queue, string.sub(entry, 1, 1) .. '//' .. key, partition, namespace_of(lane) .. '/' .. key
end

local limits_made
local function limits()
  if limits_made then return limits_made end
  local LINGER = 3600 -- seconds for which a limiter without debts is remembered; later, a message that waits tells it again
  local SPARE = 0.02 -- seconds after which others look for what somebody should have woken up for: well within the lag
  local decide = limiting()

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

  local function reopen_these(queue, entries)
    for _, entry in ipairs(entries) do
      unshut(queue, entry)
      open(queue, entry)
    end
  end

  -- Whether somebody else wakes up for what of a queue is shut until `moment`. If it was `waiter`, who has something to do
  -- now, nobody does.
  local function is_watched(queue, moment, waiter)
    local key = P .. ':alarm:' .. queue
    local at, who = string.match(call('GET', key) or '', '^(%S+) (.*)$')
    if not at or tonumber(at) <= now or tonumber(at) > moment + decide.GRAIN then return false end
    if who ~= waiter then return true end
    call('DEL', key)
    return false
  end

  -- When `waiter`, who has nothing to do, looks again for that: one wakes up, the others later, in case that one is late.
  local function alarm(queue, moment, waiter)
    if is_watched(queue, moment, waiter) then return moment + SPARE end
    local wait = digits(math.ceil(math.max(1, (moment - now) * 1000)))
    call('SET', P .. ':alarm:' .. queue, seconds(moment) .. ' ' .. waiter, 'PX', wait)
    return moment
  end

  -- What a new message says of its key holds for all.
  local told = {}
  local function renew(name, value)
    local terms = string.match(value, '^[^ ;]*;[^ ;]*;([^ ]*) ')
    if told[name] == terms then return end
    told[name] = terms
    local _, rate, burst, concurrency = terms_of(value)
    local old = limiter_at(name)
    keep_limiter(name, decide.renewed(old, rate, burst, concurrency, now))
    if old.rate ~= rate or old.burst ~= burst or old.concurrency ~= concurrency then reopen(name, '-inf') end
  end

  -- At the end of a script: wake whoever waits for what was shut and may still go.
  local function ring_reopened(ring)
    for queue in pairs(reopened) do
      if call('EXISTS', P .. ':lanes:' .. queue) == 1 then ring(queue) end
    end
  end

  limits_made = {
    terms_of = terms_of,
    limiter_at = limiter_at,
    keep_limiter = keep_limiter,
    limiter_of = limiter_of,
    decide = decide,
    shut = shut,
    unshut = unshut,
    reopen = reopen,
    reopen_these = reopen_these,
    alarm = alarm,
    is_watched = is_watched,
    renew = renew,
    ring_reopened = ring_reopened,
  }
  return limits_made
end

-- Tasks of one lane are leased no more. (They are, by `lease` in claiming.lua; nothing else counts them.)
local function unlease(lane, ids)
  local queue, _, _, name = split(lane)
  count(queue, 'leased', -#ids)
  if not name then return end
  many('SREM', P .. ':ll:' .. name, ids)
  limits().reopen(name, '+inf')
end
