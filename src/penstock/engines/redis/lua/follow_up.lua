-- Accept what follows from work that is here. ARGV: messages, each after whether it is a further try. Answers each.
local answers = {}
for i = 1, take_number() do
  local tried, m = take_number(), take_message()
  if tried == 1 and call('HGET', P .. ':o', m.id) == '' then reopen(m.id, '') end
  answers[i] = follow_up(m)
end
write_counts()
return answers
