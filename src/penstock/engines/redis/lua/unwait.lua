-- A worker waits no more. If it was rung meanwhile, somebody else is. ARGV: who, the queues.
local waiter = take()
for _, queue in ipairs(take_list()) do
  local is_something = call('EXISTS', P .. ':lanes:' .. queue, P .. ':shut:' .. queue) > 0
  if call('ZREM', P .. ':wait:' .. queue, waiter) == 0 and is_something then
    ring(queue)
  end
end
return 1
