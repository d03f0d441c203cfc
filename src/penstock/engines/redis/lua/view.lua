-- Look on without writing anything. ARGV: what, and what it needs.
return views[take()]()
