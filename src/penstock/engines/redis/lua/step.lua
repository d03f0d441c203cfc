-- Settle, and reserve. ARGV: the step's nonce; those of steps whose answers nobody got; groups of plain acks (token,
-- count, bytes, id, outcome…); other settlements; then the demand, or 0. Answers {settled, claimed, seconds until
-- something is due}. A step is done once, however often and late it comes: what it answered is remembered for a while.
-- A repeat comes within the client's patience of 30 s, or as late as a network still delivers what a broken connection sent.
local MEMORY = 180
local ORPHANED = 600
local nonce = take()
local memory = P .. ':last:' .. nonce
local remembered = call('GET', memory)
if remembered then return { remembered, claimed(nonce), '' } end

-- Their worker lives, and keeps its leases, but not knowing of these it would keep them for ever.
for _, orphan in ipairs(take_list()) do
  call('SET', P .. ':last:' .. orphan, '', 'EX', ORPHANED)
  local number = 1
  while holder_of(orphan .. '.' .. number) do
    take_back(orphan .. '.' .. number, {})
    number = number + 1
  end
end

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
  local is_more
  taken, is_more = claim(nonce, want)
  local first = is_more and now or math.huge
  for _, queue in ipairs(want.queues) do
    -- Whatever is shut was seen by `promote`, or shut by `claim`.
    local opens = limits_made and tonumber(call('ZRANGE', P .. ':shut:' .. queue, 0, 0, 'WITHSCORES')[2]) or math.huge
    if #taken == 0 and wait > 0 then
      call('ZADD', P .. ':wait:' .. queue, seconds(now + wait), waiter)
      if opens < math.huge then first = math.min(first, limits().alarm(queue, opens, waiter)) end
      first = math.min(first, tonumber(call('ZRANGE', P .. ':due:' .. queue, 0, 0, 'WITHSCORES')[2]) or math.huge)
    elseif #taken > 0 then
      local must_know = opens < math.huge and not limits().is_watched(queue, opens, waiter)
      if must_know or call('EXISTS', P .. ':lanes:' .. queue) == 1 then ring(queue) end -- more than this one can take
    end
  end
  if first < math.huge then due = seconds(first - now) end
end
write_counts()
local settled = table.concat(answers)
call('SET', memory, settled, 'EX', MEMORY)
return { settled, taken, due }
