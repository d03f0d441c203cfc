"""Who may do what at the broker: users, rights, tokens, and how a client proves who it is. Knows no socket."""
