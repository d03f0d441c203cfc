"""How tasks are numbered: see migrations/0001_tables.sql."""

from __future__ import annotations

SHIFT = 45
BLOCK = 1024
"""Sequence numbers that one process reserves at a time."""
BUCKET = 6
"""2**6 neighbours share rows of results."""
