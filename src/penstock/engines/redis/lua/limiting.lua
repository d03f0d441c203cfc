-- How many of a limited key's messages may go now: what penstock/limiting.py decides, which says why.
local function limiting()
  local LAG, GRAIN = 0.05, 1e-6

  -- What a message takes that goes now.
  local function cost_of(cost, expires, at)
    if expires and expires <= at then return 0 end
    return cost
  end

  -- The time from which a message of this cost may go; nil if it must wait until one that is leased comes back.
  local function opens(limiter, cost, leased)
    if limiter.concurrency and leased >= limiter.concurrency then return nil end
    if not limiter.rate or cost == 0 then return 0 end
    return limiter.full - math.max(0, limiter.burst - cost) / limiter.rate
  end

  -- How many of those with these costs may go, and when the next may; what they cost is paid by then.
  local function admit(limiter, costs, leased, at)
    for number, cost in ipairs(costs) do
      local moment = opens(limiter, cost, leased + number - 1)
      if not moment or moment > at + GRAIN then return number - 1, moment end
      if limiter.rate and cost > 0 then limiter.full = math.max(limiter.full, at - LAG) + cost / limiter.rate end
    end
    return #costs, nil
  end

  -- The limiter with the parameters of a newer message.
  local function renewed(limiter, rate, burst, concurrency, at)
    local full = limiter.full
    if not rate or not limiter.rate then
      full = 0
    elseif rate ~= limiter.rate and full > at then
      full = at + math.min((full - at) * limiter.rate / rate, math.max(full - at, burst / rate))
    end
    return { rate = rate, burst = burst, concurrency = concurrency, full = full, cost = limiter.cost }
  end

  -- How many of the cost of the last one may go, and one more where a rate tells when that may; `free`: so many may go
  -- besides, for nothing.
  local function likely(limiter, leased, at, free)
    local most = limiter.concurrency and limiter.concurrency - leased or math.huge
    if limiter.rate then
      local units = limiter.burst - (math.max(limiter.full, at - LAG) - at) * limiter.rate
      most = math.min(most, math.max(0, math.floor(units / limiter.cost)) + 1 + free)
    end
    return most
  end

  return { cost_of = cost_of, admit = admit, renewed = renewed, likely = likely, GRAIN = GRAIN }
end
