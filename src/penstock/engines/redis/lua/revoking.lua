-- Ending what waits, and telling what runs to end: made when it is first needed.
local revoking_made
local function revoking()
  if revoking_made then return revoking_made end

  -- Whether a task of this lane waits, ready or delayed.
  local function waits(lane, id)
    return call('ZSCORE', P .. ':r:' .. lane, id) or call('ZSCORE', P .. ':due:' .. queue_of(lane), id)
  end

  -- Take a waiting task out of where it waits; false when it does not wait.
  local function lift(lane, id)
    local queue = queue_of(lane)
    if call('ZREM', P .. ':r:' .. lane, id) == 1 then
      count(queue, 'ready', -1)
      close_if_empty(lane)
      return true
    end
    if call('ZREM', P .. ':due:' .. queue, id) == 1 then
      count(queue, 'delayed', -1)
      return true
    end
    return false
  end

  -- Its worker is told when it extends the lease.
  local function revoke_leased(id, terminate)
    local extras = extra(id)
    extras.v = (extras.v == '1') and '1' or terminate
    keep_extra(id, extras)
  end

  -- What a `Unique` that takes over makes of the holder: it ends if it waits; else it goes on, or is told to end.
  local function displace(id, how)
    local value = call('HGET', P .. ':m', id)
    if not value then return end
    local lane = lane_of(value)
    if lift(lane, id) then
      finish_revoked(lane, id)
    elseif how == 'cancel' then
      revoke_leased(id, '1')
    end
  end

  -- The same on paper: what of the batch so far, or from before, would be displaced by `m`. A waiting one leaves its keys.
  local function plan_displacement(batch, m, id)
    local mine = batch.fresh[id]
    local value = mine and mine.value or call('HGET', P .. ':m', id)
    if batch.gone[id] or not value then return end
    local lane = lane_of(value)
    if not mine and not waits(lane, id) then return end
    batch.gone[id] = { lane = lane, bytes = #value }
    m.displaced[#m.displaced + 1] = batch.gone[id]
    local uniques = extra(id).u or {}
    for _, guard in ipairs(mine and mine.guards or {}) do
      if guard[1] == 'U' then uniques[#uniques + 1] = { guard[2], guard[3] } end
    end
    for _, one in ipairs(uniques) do
      local name = unique_key(lane, one[1])
      if one[2] ~= 'ttl' and (batch.held[name] or call('GET', name)) == id then batch.held[name] = false end
    end
  end

  revoking_made =
    { waits = waits, lift = lift, revoke_leased = revoke_leased, displace = displace, plan_displacement = plan_displacement }
  return revoking_made
end
