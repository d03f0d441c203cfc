"""Row ids, and the public ids made from them.

A row id is lane << 45 | parked << 44 | sequence, so that a look-up needs no index: the id is the place. The public id
adds a keyed tag, so that an id of another database, or a guessed one, is never mistaken for a task of this one.
"""

from __future__ import annotations

import hashlib

LANE_SHIFT = 45
PARKED = 1 << 44
LANE_BITS = 18
FIRST_TASK = 1 << LANE_SHIFT
"""Lanes count from 1: smaller row ids are of tasks that are elsewhere, and whose results are kept here."""
MAX_LANE = (1 << LANE_BITS) - 1
"""Lanes that can exist at once; a lane's 2**44 sequence numbers last for 400 days at 500,000 tasks a second."""


class PublicIds:
    """Makes and checks public ids: 16 hex digits of the row id, 16 of its tag under the database's secret."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=secret, digest_size=8)

    def make(self, row: int) -> str:
        place = row.to_bytes(8, "big")
        tag = self._keyed.copy()
        tag.update(place)
        return place.hex() + tag.hexdigest()

    def row(self, public: str) -> int | None:
        """The row id in `public`, or `None` when it was not minted here."""
        if len(public) != 32:
            return None
        try:
            row = int(public[:16], 16)
        except ValueError:
            return None
        if row >> 63 or self.make(row) != public:
            return None
        return row


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
