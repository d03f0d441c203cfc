-- Accept what follows from work that is here. ARGV: messages. Answers each.
local answers = {}
for i = 1, take_number() do
  answers[i] = follow_up(take_message())
end
write_counts()
return answers
