"""How long somebody who has failed must wait: nothing at first, then longer each time. A bounded table."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv4Address, ip_address, ip_network

from msgspec import Struct

from penstock.clock import Clock

LONGEST = 60.0
FORGET = 900.0
"""Seconds without a failure after which everything is forgotten."""
MOST = 10_000


def origin(address: str) -> str:
    """What is charged for an address: of IPv6 the network, since whoever has one address there has 2**64 of them."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ip_network((found, 64), strict=False))


class _Record(Struct):
    failures: int
    last: float
    until: float


class Throttle:
    """Counts failures by key. Beyond `allowance` of them, the next attempt is not looked at for 1 s, 2 s, 4 s … up to
    `LONGEST`. Of more than `most` keys, the ones that failed longest ago are forgotten."""

    def __init__(self, clock: Clock, allowance: int, most: int = MOST) -> None:
        self._clock = clock
        self._allowance = allowance
        self._most = most
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def wait(self, key: Hashable) -> float:
        """Seconds until the next attempt is looked at; 0: now."""
        record = self._records.get(key)
        return max(0.0, record.until - self._clock.monotonic()) if record else 0.0

    def charge(self, key: Hashable) -> bool:
        """One failure more; whether it was within the allowance."""
        now = self._clock.monotonic()
        record = self._records.pop(key, None)
        if record is None or now - record.last > FORGET:
            record = _Record(0, now, now)
        record.failures += 1
        record.last = now
        beyond = record.failures - self._allowance
        if beyond >= 0:
            record.until = now + min(LONGEST, 2.0 ** min(beyond, 30))
        self._records[key] = record
        while len(self._records) > self._most:
            self._records.popitem(last=False)
        return beyond <= 0

    def forgive(self, key: Hashable) -> None:
        self._records.pop(key, None)
