"""Row ids: lane << 45 | parked << 44 | sequence, so that a look-up needs no index: the id is the place."""

from __future__ import annotations

LANE_SHIFT = 45
PARKED = 1 << 44
LANE_BITS = 18
FIRST_TASK = 1 << LANE_SHIFT
"""Lanes count from 1: smaller row ids are of tasks that are elsewhere, and whose results are kept here."""
MAX_LANE = (1 << LANE_BITS) - 1
"""Lanes that can exist at once; a lane's 2**44 sequence numbers last for 400 days at 500,000 tasks a second."""


def lane_base(lane: int) -> int:
    """The first row id of a lane."""
    return (lane << LANE_SHIFT) + 1


def lane_of(row: int) -> int:
    return row >> LANE_SHIFT


def runs(rows: list[int]) -> list[tuple[int, int]]:
    """Consecutive row ids as (first, last) pairs; `rows` ascend."""
    found: list[tuple[int, int]] = []
    if not rows:
        return found
    low = high = rows[0]
    for row in rows[1:]:
        if row != high + 1:
            found.append((low, high))
            low = row
        high = row
    found.append((low, high))
    return found
