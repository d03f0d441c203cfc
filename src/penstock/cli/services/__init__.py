"""Brokers and workers that run without a terminal: under systemd, or by pid files where there is none."""
