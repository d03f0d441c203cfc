-- Revocations, elections, and the small shared state. ARGV: the verb, and what it needs.
local verb = take()

local function revoke(id, terminate)
  local value = call('HGET', P .. ':m', id)
  if not value then
    if is_known(id) then return 'ended' end
    if call('HSET', P .. ':rv', id, terminate) == 1 then call('RPUSH', P .. ':rvl', cmsgpack.pack({ now, id })) end
    return 'remembered'
  end
  local lane = lane_of(value)
  if revoking().lift(lane, id) then
    finish_revoked(lane, id)
    return 'removed'
  end
  revoking().revoke_leased(id, terminate)
  return 'running'
end

local verbs = {}

function verbs.revoke()
  local terminate, found = take(), {}
  for i, id in ipairs(take_list()) do found[i] = revoke(id, terminate) end
  return found
end

function verbs.acquire()
  local key, holder, ttl = P .. ':lead:' .. take(), take(), take_number()
  local lead = call('HMGET', key, 'holder', 'until', 'token')
  if not lead[2] or tonumber(lead[2]) <= now then
    lead[3] = digits(places(1))
    call('HSET', key, 'holder', holder, 'token', lead[3])
  elseif lead[1] ~= holder then
    return ''
  end
  call('HSET', key, 'until', seconds(now + ttl))
  return lead[3]
end

function verbs.resign()
  local key, holder = P .. ':lead:' .. take(), take()
  if call('HGET', key, 'holder') == holder then call('HSET', key, 'until', '0') end
  return 1
end

function verbs.get()
  local key = take()
  local version = call('HGET', P .. ':kv', key)
  return version and { version, call('HGET', P .. ':kd', key) } or {}
end

function verbs.put()
  local key, deletes, value, version = take(), take() == '1', take(), take()
  return put(key, not deletes and value, version) or ''
end

local reply = verbs[verb]()
write_counts()
return reply
