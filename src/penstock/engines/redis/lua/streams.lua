-- Parts: what tasks publish while they run, the newest of each. They go with the outcome, and count as bytes of it.
--   :ps id -> run, mark, first, end, bytes, when added, whether :od has it for its parts alone     :pl:id list of records
-- Made when it is first needed.
local streams_made
local function streams()
  if streams_made then return streams_made end

  local function stream_of(id)
    local packed = call('HGET', P .. ':ps', id)
    if not packed then return nil end
    local one = cmsgpack.unpack(packed)
    return { run = one[1], mark = one[2], first = one[3], last = one[4], bytes = one[5], added = one[6], listed = one[7] }
  end

  local function keep_stream(id, s)
    call('HSET', P .. ':ps', id, cmsgpack.pack({ s.run, s.mark, s.first, s.last, s.bytes, s.added, s.listed }))
  end

  -- Drop the parts of these; returns how many bytes those were.
  local function drop_parts(ids)
    local bytes = 0
    for _, id in ipairs(ids) do
      local stream = stream_of(id)
      if stream then
        call('DEL', P .. ':pl:' .. id)
        call('HDEL', P .. ':ps', id)
        bytes = bytes + stream.bytes
      end
    end
    return bytes
  end

  -- The outcomes of these, if they had any, are old. Parts of what still runs stay, and those of what never ended here go
  -- when nothing was added for as long (or at once, if there are too many bytes). Returns how many bytes went.
  local function expire_parts(ids, records, over)
    local old = {}
    for i, id in ipairs(ids) do
      local stream = stream_of(id)
      local has_ended = records[i] and records[i] ~= ''
      if stream and not has_ended and call('HEXISTS', P .. ':m', id) == 1 then
        stream.listed = false
        keep_stream(id, stream)
      elseif stream and not has_ended and not over and stream.added + KEEP > now then
        call('RPUSH', P .. ':od', cmsgpack.pack({ stream.added, id }))
        stream.listed = true
        keep_stream(id, stream)
      elseif stream then
        old[#old + 1] = id
      end
    end
    return drop_parts(old)
  end

  -- These end here after all, and `batch` (a time, ids…) lists them for that: what they were listed for before is void.
  local function unlist(batch)
    for i = 2, #batch do
      local id = batch[i]
      local stream = stream_of(id)
      if stream and stream.listed then
        stream.listed = false
        keep_stream(id, stream)
        call('HINCRBY', P .. ':stale', id, 1)
      end
    end
  end

  -- Whoever waits for parts of this task looks again.
  local function tell_of_parts(id)
    for client in string.gmatch(call('HGET', P .. ':pi', id) or '', '%S+') do
      call('PUBLISH', P .. ':c:' .. client, 'p' .. id)
    end
  end

  streams_made = { of = stream_of, keep = keep_stream, drop = drop_parts, expire = expire_parts, unlist = unlist, tell = tell_of_parts }
  return streams_made
end
