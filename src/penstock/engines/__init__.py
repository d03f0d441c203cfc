"""Engines: one folder per server, which holds all that is known about it. `penstock.app` picks one by its URL."""
