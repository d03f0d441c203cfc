"""Priorities: 9 is served first, each level first in first out."""

from __future__ import annotations

from penstock.message import HIGHEST, LOWEST, NORMAL
from penstock.testing.conformance.expect import equal
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import bodies


async def unranked(kit: Kit) -> bool:
    """True for an engine without priorities, after making sure that it refuses them."""
    if kit.features.priority:
        return False
    queue, worker = await kit.queue(), await kit.worker()
    for priority in (LOWEST, HIGHEST):
        await kit.refused(kit.broker.publish([kit.message(queue, priority=priority)], PUBLISH_TIMEOUT), "a priority")
    await worker.nothing(queue)
    return True


async def check_nine_is_first(kit: Kit) -> None:
    if await unranked(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    levels = [4, 0, 9, 2, 7, 5, 1, 8, 3, 6]
    await kit.accept(*(kit.message(queue, b"%d" % level, priority=level) for level in levels))
    taken = bodies(await worker.take(queue, count=10))
    equal(taken, [b"%d" % level for level in range(HIGHEST, LOWEST - 1, -1)], "bodies by priority")


async def check_fifo_within_a_priority(kit: Kit) -> None:
    if await unranked(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*(kit.message(queue, b"%d" % n, priority=n % 2 * 9) for n in range(10)))
    taken = bodies(await worker.take(queue, count=10))
    equal(taken, [b"%d" % n for n in (1, 3, 5, 7, 9, 0, 2, 4, 6, 8)], "first in first out at each level")


async def check_urgent_overtakes_what_waits(kit: Kit) -> None:
    if await unranked(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 3)
    await worker.take(queue)
    await kit.accept(kit.message(queue, b"urgent", priority=HIGHEST))
    equal(bodies(await worker.take(queue, count=3)), [b"urgent", b"1", b"2"], "bodies, urgent first")


async def check_priority_survives_a_redelivery(kit: Kit) -> None:
    if await unranked(kit):
        return
    queue, worker, heir = await kit.queue(), await kit.worker(), await kit.worker("heir")
    await kit.accept(kit.message(queue, b"urgent", priority=HIGHEST))
    await worker.take(queue, lease=kit.unit)
    await kit.accept(kit.message(queue, b"normal", priority=NORMAL))
    await kit.expire(worker)
    equal(bodies(await heir.take(queue, count=2)), [b"urgent", b"normal"], "bodies after a lost lease")


CHECKS = (
    check_nine_is_first,
    check_fifo_within_a_priority,
    check_urgent_overtakes_what_waits,
    check_priority_survives_a_redelivery,
)
