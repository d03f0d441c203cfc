-- Dead letters. These tasks of one lane are in no lane and no claim any more; `values`, `attempts` and `records` by place.
-- Those that were shed have a `mark` instead of a reason.
local function bury(lane, ids, values, attempts, records, reason, mark)
  local queue, bytes, first = queue_of(lane), 0, places(#ids)
  for _, value in ipairs(values) do bytes = bytes + #value end
  finish(lane, ids, records, bytes)
  for i, id in ipairs(ids) do
    call('HSET', P .. ':dm', id, values[i])
    call('HSET', P .. ':di', id, cmsgpack.pack({ seconds(now), tostring(attempts[i]), reason, mark }))
    call('ZADD', P .. ':dl:' .. queue, digits(first + i - 1), id)
  end
  count(queue, 'dead', #ids)
end
