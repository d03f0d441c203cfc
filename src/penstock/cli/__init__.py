"""The command line: `penstock -A tasks worker`. Each command is a module of its own, imported only when it is typed."""
