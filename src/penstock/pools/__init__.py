"""Pools: how one worker process runs what it reserves."""
