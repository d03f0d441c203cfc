"""Public ids of tasks that an engine knows by a number.

The public id adds a keyed tag to the number, so that an id of another database, or a guessed one, is never mistaken for
a task of this one.
"""

from __future__ import annotations

import hashlib


class PublicIds:
    """Makes and checks public ids: 16 hex digits of the number, 16 of its tag under the database's secret (blake2b of
    the number's 8 bytes, big-endian; 8 bytes of it)."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=secret, digest_size=8)
        self.fingerprint = hashlib.sha256(secret).hexdigest()
        """Tells this database from all others, without its secret."""

    def make(self, number: int) -> str:
        place = number.to_bytes(8, "big")
        tag = self._keyed.copy()
        tag.update(place)
        return place.hex() + tag.hexdigest()

    def number(self, public: str) -> int | None:
        """The number in `public`, or `None` when it was not minted here."""
        if len(public) != 32:
            return None
        try:
            number = int(public[:16], 16)
        except ValueError:
            return None
        if number >> 63 or self.make(number) != public:
            return None
        return number
