"""The gateway beside a bare endpoint that commits one row: see `bench.gateway`."""

from __future__ import annotations

from collections.abc import Iterator

from bench import gateway
from bench.machine import Meter
from bench.measure import Goal, Reading, Result
from bench.place import Place


def front(place: Place) -> Iterator[Result]:
    with Meter() as meter:
        compared = list(gateway.compare(place.size(5, 1), 1.0 if not place.quick else 0.3))
    for clients, pairs in compared:
        who = f"{clients} clients" if clients > 1 else "one client"
        ours, bare = (tuple(Reading(rate, meter.foreign) for rate in rates) for rates in zip(*pairs, strict=True))
        name = f"gateway/{clients}"
        yield Result(name, f"{who}, POST → 202: the gateway", "calls/s", ours, None, "power")
        yield Result(f"{name}/bare", f"{who}: bare Starlette, one synced row", "calls/s", bare, None, "power")
        ratios = tuple(Reading(one / other, meter.foreign) for one, other in pairs)
        yield Result(f"{name}/ratio", "the first ÷ the second", "×", ratios, Goal(0.6, 0.4), "power")
