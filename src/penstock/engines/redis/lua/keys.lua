-- Unique and dedup keys, fences, and the small shared state.

local function unique_key(lane, key) return P .. ':u:' .. namespace_of(lane) .. '/' .. key end

local function free_unique(lane, key, id)
  local name = unique_key(lane, key)
  if call('GET', name) == id then call('DEL', name) end
end

local function hold(name, id, ttl)
  if ttl then
    call('SET', name, id, 'PX', digits(math.max(1, math.floor(math.min(ttl, 1e9) * 1000))))
  else
    call('SET', name, id)
  end
end

local function free_uniques(lane, id, extras, moment)
  for _, one in ipairs(extras and extras.u or {}) do
    if one[2] ~= 'ttl' and (not moment or one[2] == moment) then free_unique(lane, one[1], id) end
  end
end

-- It did not start after all; if somebody took the key meanwhile, both wait.
local function hold_again(lane, id, extras)
  for _, one in ipairs(extras.u or {}) do
    local name = unique_key(lane, one[1])
    if one[2] == 'start' and call('EXISTS', name) == 0 then hold(name, id, one[3]) end
  end
end

local function is_current(name, token)
  local lead = call('HMGET', P .. ':lead:' .. name, 'token', 'until')
  return lead[1] == token and tonumber(lead[2]) > now
end

-- Set (or with `value` = false delete) a value: its new version, or nil when `if_version` is not current.
local function put(key, value, if_version)
  local present = call('HGET', P .. ':kv', key) or '0'
  if if_version ~= '' and if_version ~= present then return nil end
  if not value then
    call('HDEL', P .. ':kv', key)
    call('HDEL', P .. ':kd', key)
    return '0'
  end
  local version = digits(places(1)) -- never given before, so that a deleted and recreated key is another one
  call('HSET', P .. ':kv', key, version)
  call('HSET', P .. ':kd', key, value)
  return version
end
