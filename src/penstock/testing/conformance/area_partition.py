"""Partitions: the keys of a queue take turns, so that one that floods it does not starve the others."""

from __future__ import annotations

from collections import Counter

from penstock.message import HIGHEST
from penstock.testing.conformance.expect import equal, expect
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import bodies


async def unparted(kit: Kit) -> bool:
    """True for an engine without partitions, after making sure that it refuses them."""
    if kit.features.partition:
        return False
    queue, worker = await kit.queue(), await kit.worker()
    await kit.refused(kit.broker.publish([kit.message(queue, partition="a")], PUBLISH_TIMEOUT), "a partition")
    await worker.nothing(queue)
    return True


async def publish_to(kit: Kit, queue: str, partition: str, count: int, priority: int = 5) -> None:
    messages = [
        kit.message(queue, b"%s%d" % (partition.encode(), n), partition=partition, priority=priority)
        for n in range(count)
    ]
    await kit.accept(*messages)


async def check_a_flooded_partition_does_not_starve_another(kit: Kit) -> None:
    if await unparted(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await publish_to(kit, queue, "a", 40)
    await worker.take(queue, count=2)
    await publish_to(kit, queue, "b", 1)
    taken = [body for _ in range(3) for body in bodies(await worker.take(queue))]
    expect(b"b0" in taken, f"a quiet partition's task is among the next three, but these came: {taken}")


async def check_large_demands_are_fair_too(kit: Kit) -> None:
    if await unparted(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await publish_to(kit, queue, "a", 40)
    await publish_to(kit, queue, "b", 2)
    taken: list[bytes] = []
    for _ in range(2):
        step = await worker.step([], worker.demand(queue, limit=10, wait=kit.patience))
        taken += bodies(step.deliveries)
    expect(b"b0" in taken, f"a quiet partition has its turn within two steps, but these came: {taken}")


async def check_all_partitions_share(kit: Kit) -> None:
    if await unparted(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    for partition in ("", "b", "c"):
        await publish_to(kit, queue, partition, 20)
    shares: Counter[str] = Counter()
    for _ in range(15):
        shares.update(one.message.partition for one in await worker.take(queue) if one.message)
    expect(
        len(shares) == 3 and min(shares.values()) >= 3, f"three partitions share 15 deliveries, but had {dict(shares)}"
    )


async def check_fifo_within_a_partition(kit: Kit) -> None:
    if await unparted(kit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await publish_to(kit, queue, "a", 5)
    await publish_to(kit, queue, "b", 5)
    taken = bodies(await worker.take(queue, count=10))
    for letter in (b"a", b"b"):
        mine = [body for body in taken if body.startswith(letter)]
        equal(mine, [b"%s%d" % (letter, n) for n in range(5)], "first in first out in each partition")


async def check_priority_goes_before_partition(kit: Kit) -> None:
    if await unparted(kit) or not kit.features.priority:
        return
    queue, worker = await kit.queue(), await kit.worker()
    await publish_to(kit, queue, "a", 5)
    await publish_to(kit, queue, "b", 3, priority=HIGHEST)
    equal(bodies(await worker.take(queue, count=3)), [b"b0", b"b1", b"b2"], "urgent tasks of one partition")


CHECKS = (
    check_a_flooded_partition_does_not_starve_another,
    check_large_demands_are_fair_too,
    check_all_partitions_share,
    check_fifo_within_a_partition,
    check_priority_goes_before_partition,
)
