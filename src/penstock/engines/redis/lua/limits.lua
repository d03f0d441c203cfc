-- Limited lanes. One has a fifth part, the key of its limit. Among the lanes of a queue, `priority//key` stands for all
-- partitions of that key, which take turns among themselves. What may not go yet is not among them, but shut: until a
-- moment, or (without an end) until a lease of the key ends.
--   :l:namespace/key the limiter     :ll:namespace/key the ids that are leased     :lp:queue/priority//key its partitions
--   :shut:queue what is shut, by the moment          :lw:namespace/key the same, of all queues
--   :alarm:queue when and whom the next moment wakes
-- What only limited lanes need is made when it is first needed: to make a function takes as long as a command.

function limits()
  if limits_made then return limits_made end
  local LINGER = 3600 -- seconds for which a limiter without debts is remembered; later, a message that waits tells it again
  local SPARE = 0.02 -- seconds after which others look for what somebody should have woken up for: well within the lag
  local decide = limiting()

  local function limiter_of(queue, entry) return namespace_of(queue .. '/') .. '/' .. string.sub(entry, 4) end

  local TERMS = '^[^ ;]*;([^ ;]*);([^ ;]*);([^ ;]*);([^ ;]*);?([^ ;]*) '

  -- Rate, burst and concurrency, as the message in `value` has them.
  local function terms_of(value)
    local _, rate, burst, concurrency = string.match(value, TERMS)
    return tonumber(rate), tonumber(burst) or 1, tonumber(concurrency)
  end

  -- What it takes if it goes now.
  local function cost_of(value)
    local cost, _, _, _, expires = string.match(value, TERMS)
    return decide.cost_of(tonumber(cost) or 1, tonumber(expires), now)
  end

  local function limiter_at(name)
    local found = call('HMGET', P .. ':l:' .. name, 'rate', 'burst', 'concurrency', 'full', 'cost')
    local limiter = { rate = tonumber(found[1] or ''), burst = tonumber(found[2] or '') or 1 }
    limiter.concurrency, limiter.full = tonumber(found[3] or ''), tonumber(found[4] or '') or 0
    limiter.cost = tonumber(found[5] or '') or 1 -- of the last one that paid
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

  local function reopen_due(queue, most)
    for _, entry in ipairs(call('ZRANGEBYSCORE', P .. ':shut:' .. queue, '-inf', seconds(now), 'LIMIT', 0, most)) do
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
    local terms = string.match(value, '^[^ ;]*;[^ ;]*;([^ ;]*;[^ ;]*;[^ ;]*)')
    if told[name] == terms then return end
    told[name] = terms
    local rate, burst, concurrency = terms_of(value)
    local old = limiter_at(name)
    keep_limiter(name, decide.renewed(old, rate, burst, concurrency, now))
    if old.rate ~= rate or old.burst ~= burst or old.concurrency ~= concurrency then reopen(name, '-inf') end
  end

  local free = {} -- of each limiter, how many have gone for nothing

  -- Take up to `most` of a limited lane as far as its limiter lets them go; else shut what stands for it. `fitting` is that of
  -- claiming.lua.
  local function take_some(queue, entry, most, room, must, fitting)
    local name, partitions = limiter_of(queue, entry), P .. ':lp:' .. queue .. '/' .. entry
    local partition = call('ZRANGE', partitions, 0, 0)[1] or ''
    local lane = queue .. '/' .. string.sub(entry, 1, 2) .. partition .. string.sub(entry, 3)
    local limiter, is_known = limiter_at(name)
    if not is_known then -- forgotten, while this waited
      local newest = call('ZREVRANGE', P .. ':r:' .. lane, 0, 0)[1]
      renew(name, newest and call('HGET', P .. ':m', newest) or '')
      limiter = limiter_at(name)
    end
    local leased = call('SCARD', P .. ':ll:' .. name)
    local likely = math.min(most, decide.likely(limiter, leased, now, 2 * (free[name] or 0)))
    if likely < 1 then
      shut(queue, entry)
      return lane, {}, {}, 0, false
    end
    local held, values, bytes, full = fitting(lane, call('ZPOPMIN', P .. ':r:' .. lane, likely), room, must)
    local costs = {}
    for n, value in ipairs(values) do costs[n] = cost_of(value) end
    local going, again = decide.admit(limiter, costs, leased, now)
    local is_shut = going < #values or (limiter.concurrency and leased + going >= limiter.concurrency)
    if going > 0 then
      local ids = {}
      for n = 1, going do
        ids[n] = held[2 * n - 1]
        if costs[n] > 0 then
          limiter.cost = costs[n]
        else
          free[name] = (free[name] or 0) + 1
        end
      end
      many('SADD', P .. ':ll:' .. name, ids)
      keep_limiter(name, limiter)
    end
    for n = #values, going + 1, -1 do
      local place, id = table.remove(held), table.remove(held)
      call('ZADD', P .. ':r:' .. lane, place, id)
      bytes = bytes - #table.remove(values)
    end
    if not close_if_empty(lane) then
      call('ZADD', partitions, call('INCR', P .. ':turn'), partition)
      if is_shut then shut(queue, entry, again) end
    end
    return lane, held, values, bytes, full and not is_shut
  end

  -- At the end of a script: wake whoever waits for what was shut and may still go.
  local function ring_reopened()
    for queue in pairs(reopened) do
      if call('EXISTS', P .. ':lanes:' .. queue) == 1 then ring(queue) end
    end
  end

  limits_made = {
    unshut = unshut,
    reopen = reopen,
    alarm = alarm,
    is_watched = is_watched,
    renew = renew,
    reopen_due = reopen_due,
    take_some = take_some,
    ring_reopened = ring_reopened,
  }
  return limits_made
end
