local LETTERS = 100000 -- of one queue that are kept; the oldest go first

-- Dead letters. These tasks of one lane are in no lane and no claim any more; `values`, `attempts` and `records` by place.
-- Those that were shed have a `mark` instead of a reason.
local function bury(lane, ids, values, attempts, records, reason, mark)
  local queue, bytes, first = queue_of(lane), 0, places(#ids)
  local letters = P .. ':dl:' .. queue
  for _, value in ipairs(values) do bytes = bytes + #value end
  finish(lane, ids, records, bytes)
  for i, id in ipairs(ids) do
    call('HSET', P .. ':dm', id, values[i])
    call('HSET', P .. ':di', id, cmsgpack.pack({ seconds(now), tostring(attempts[i]), reason, mark }))
    call('ZADD', letters, digits(first + i - 1), id)
  end
  count(queue, 'dead', #ids)
  local over = call('ZCARD', letters) - LETTERS
  if over <= 0 then return end
  local oldest, gone = call('ZPOPMIN', letters, math.min(over, 2 * #ids)), {}
  for i = 1, #oldest, 2 do gone[#gone + 1] = oldest[i] end
  many('HDEL', P .. ':dm', gone)
  many('HDEL', P .. ':di', gone)
  count(queue, 'dead', -#gone)
end
