"""Which secrets were found right before, so that a thousand clients that come back cost no thousand argon2 runs."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict

MOST = 10_000


class Verified:
    """A bounded memory, for this process only. What it keeps are digests under a key that dies with the process, and it
    holds for one `generation` of the user: another password is another one."""

    def __init__(self, most: int = MOST) -> None:
        self._key = secrets.token_bytes(32)
        self._most = most
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def digest(self, *parts: str) -> bytes:
        # repr keeps parts apart whatever is in them, and has no surrogates.
        return hmac.digest(self._key, repr(parts).encode(), "sha256")

    def knows(self, generation: int, *parts: str) -> bool:
        """Whether exactly these `parts` were learnt. The look-up is by the keyed digest: its time tells nothing."""
        digest = self.digest(*parts)
        if self._known.get(digest) != generation:
            self._known.pop(digest, None)
            return False
        self._known.move_to_end(digest)
        return True

    def learn(self, generation: int, *parts: str) -> None:
        self._known[self.digest(*parts)] = generation
        while len(self._known) > self._most:
            self._known.popitem(last=False)
