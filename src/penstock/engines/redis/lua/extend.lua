-- Keep leases. ARGV: seconds, count, token, id… Answers for each: until, or '' when lost, or 'c0' / 'c1' when revoked.
local until_time, answers = now + take_number(), {}
for i = 1, take_number() do
  local token, id = take(), take()
  answers[i] = ''
  if call('HEXISTS', P .. ':h:' .. token, id) == 1 then
    call('ZADD', P .. ':leases', 'GT', seconds(until_time), token)
    local revocation = extra(id).v
    answers[i] = revocation and 'c' .. revocation or call('ZSCORE', P .. ':leases', token)
  end
end
return answers
