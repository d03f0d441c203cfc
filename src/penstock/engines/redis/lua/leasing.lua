-- Claims: what a worker holds, by token.

local function holder_of(token)
  local info = call('HGET', P .. ':t', token)
  if not info then return nil end
  return string.match(info, '^(%S*) (.*)$')
end

local function drop_if_empty(token)
  if call('EXISTS', P .. ':h:' .. token) == 1 then return end
  local worker = holder_of(token)
  call('ZREM', P .. ':leases', token)
  call('HDEL', P .. ':t', token)
  if worker then call('SREM', P .. ':wt:' .. worker, token) end
end

-- A task that is held no more returns to its old place, or ends if it was revoked meanwhile.
local function give_back(lane, id, old_place, charge)
  unlease(lane, { id })
  call('HDEL', P .. ':pg', id)
  local extras = extra(id)
  if extras.v then
    finish_revoked(lane, id)
    return
  end
  if charge then extras.a = (extras.a or 0) + 1 end
  if call('HEXISTS', P .. ':q:' .. queue_of(lane), 'overflow') == 1 then extras.b = 1 end -- its queue sheds, but not this
  if charge or extras.b then keep_extra(id, extras) end
  hold_again(lane, id, extras)
  line_up(lane, { old_place, id })
end

-- Take back all that a token holds. `started`: the ids that are charged with an attempt. Returns how many.
local function take_back(token, started)
  local _, lane = holder_of(token)
  local held = call('HGETALL', P .. ':h:' .. token)
  call('DEL', P .. ':h:' .. token)
  drop_if_empty(token)
  if not lane then return 0 end
  for i = 1, #held, 2 do give_back(lane, held[i], held[i + 1], started[token .. ' ' .. held[i]]) end
  return #held / 2
end

local function take_started()
  local started = {}
  for _, one in ipairs(take_list()) do started[one] = true end
  return started
end
