-- One plain message, to a lane that has some, where nobody waits and nothing is unusual: what the rest of this script does
-- with it, without what only batches need (most of the time of so short a script is spent on making its functions).
-- All else is left to the rest; until HSETNX nothing is changed.
if ARGV[5] == '1' and ARGV[7] == '1' and ARGV[10] == '0' then
  local call, P, lane, id, value = redis.call, KEYS[1], ARGV[6], ARGV[8], ARGV[9]
  local queue = string.match(lane, '^([^/]*/[^/]*)/')
  local counters, ready = P .. ':q:' .. queue, P .. ':r:' .. lane
  local q = call('HMGET', counters, 'ready', 'leased', 'delayed', 'bytes', 'length', 'size', 'opened', 'enqueued')
  local bytes = (tonumber(q[4]) or 0) + #value
  if q[7]
    and (tonumber(q[1]) or 0) + (tonumber(q[2]) or 0) + (tonumber(q[3]) or 0) < tonumber(q[5] or ARGV[3])
    and bytes <= tonumber(q[6] or ARGV[4])
    and call('EXISTS', ready) == 1
    and call('EXISTS', P .. ':wait:' .. queue) == 0
    and (call('EXISTS', P .. ':dm', P .. ':rv') == 0
      or (call('HEXISTS', P .. ':dm', id) == 0 and call('HEXISTS', P .. ':rv', id) == 0))
    and call('HEXISTS', P .. ':o', id) == 0
    and call('HSETNX', P .. ':m', id, value) == 1
  then
    local time = call('TIME')
    local place = tonumber(time[1]) * 1e6 + tonumber(time[2])
    local last = tonumber(call('GET', P .. ':seq') or 0)
    if place <= last then place = last + 1 end
    place = string.format('%.0f', place)
    call('SET', P .. ':seq', place)
    call('ZADD', ready, place, id)
    call('HSET', counters, 'ready', string.format('%.0f', (tonumber(q[1]) or 0) + 1),
      'bytes', string.format('%.0f', bytes), 'enqueued', string.format('%.0f', (tonumber(q[8]) or 0) + 1))
    return {}
  end
end
