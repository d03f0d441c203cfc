-- Settle, and reserve. ARGV: the step's nonce; whether it is a repeat; groups of plain acks (token, count, bytes, id,
-- outcome…); other settlements; then the demand, or 0. Answers {settled, claimed, seconds until something is due}.
local nonce, is_repeat = take(), take() == '1'
local memory = P .. ':last:' .. nonce
local remembered = is_repeat and call('GET', memory)
if remembered then return { remembered, claimed(nonce), '' } end

local answers = {}
for _ = 1, take_number() do
  local token, size = take(), take_number()
  ack(token, size, take_number(), answers)
end
for _ = 1, take_number() do answers[#answers + 1] = settle() end

local taken, due = {}, ''
if take() == '1' then
  local want = { limit = take_number(), bytes = take_number(), lease = take_number(), worker = take() }
  local waiter, was_waiting, wait = take(), take() == '1', take_number()
  want.queues = take_list()
  if was_waiting then
    for _, queue in ipairs(want.queues) do call('ZREM', P .. ':wait:' .. queue, waiter) end
  end
  for _, queue in ipairs(want.queues) do promote(queue, 1000) end
  taken = claim(nonce, want)
  for _, queue in ipairs(want.queues) do
    if #taken == 0 and wait > 0 then
      call('ZADD', P .. ':wait:' .. queue, seconds(now + wait), waiter)
      local first = call('ZRANGE', P .. ':due:' .. queue, 0, 0, 'WITHSCORES')[2]
      if first and (due == '' or tonumber(first) - now < tonumber(due)) then due = seconds(tonumber(first) - now) end
    elseif #taken > 0 and call('EXISTS', P .. ':lanes:' .. queue) == 1 then
      ring(queue) -- more than this one can take
    end
  end
end
write_counts()
local settled = table.concat(answers)
if #answers > 0 or #taken > 0 then call('SET', memory, settled, 'EX', 120) end
return { settled, taken, due }
