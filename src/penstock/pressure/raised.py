"""The alarms that are active, as the shared state has them: for whoever leads next, and for whoever looks on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite

import msgspec
from msgspec import Struct

from penstock.coordinator import Shared
from penstock.pressure.alarms import MOST, Alarm

FRESH = 60.0
"""Seconds after which the alarms of a queue are not believed any more, since nobody renews them."""
TRIES = 3
"""Others write into the same value."""


class Raised(Struct, frozen=True, array_like=True):
    """Of one queue, as they were `at` a moment (Unix time)."""

    at: float
    alarms: list[Alarm]


def raised_name(namespace: str) -> str:
    return f"pressure:{namespace}:alarms"


async def raised(coordinator: Shared, namespace: str, now: float) -> dict[str, list[Alarm]]:
    """By queue; those that can be true, and are fresh."""
    value = await coordinator.get(raised_name(namespace))
    return {queue: one.alarms for queue, one in read(value[0] if value else None, now).items()}


async def store(
    coordinator: Shared, namespace: str, queues: Collection[str], alarms: Sequence[Alarm], now: float
) -> None:
    """Those of `queues` are `alarms` now; the others stay."""
    for _ in range(TRIES):
        value = await coordinator.get(raised_name(namespace))
        data, version = value or (None, None)
        kept = {queue: one for queue, one in read(data, now).items() if queue not in queues}
        for alarm in alarms:
            if alarm.queue in queues:
                kept.setdefault(alarm.queue, Raised(now, [])).alarms.append(alarm)
        if data is None and not kept:
            return
        if await coordinator.put(raised_name(namespace), msgspec.msgpack.encode(kept), version) is not None:
            return


def read(data: bytes | None, now: float) -> dict[str, Raised]:
    if data is None:
        return {}
    try:
        found = msgspec.msgpack.decode(data, type=dict[str, Raised])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return {}
    return {queue: one for queue, one in found.items() if abs(now - one.at) <= FRESH and _sane(queue, one)}


def _sane(queue: str, one: Raised) -> bool:
    numbers = (number for alarm in one.alarms for number in (alarm.value, alarm.limit, alarm.since))
    return len(one.alarms) <= MOST and all(map(isfinite, numbers)) and all(a.queue == queue for a in one.alarms)
