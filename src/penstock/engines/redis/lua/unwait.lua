-- A worker waits no more. If it was rung meanwhile, somebody else is. ARGV: who, the queues.
local waiter = take()
for _, queue in ipairs(take_list()) do
  if call('ZREM', P .. ':wait:' .. queue, waiter) == 0 and call('EXISTS', P .. ':lanes:' .. queue) == 1 then
    ring(queue)
  end
end
return 1
