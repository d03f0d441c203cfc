"""Limits: what one key hands out is bounded in rate and number, whoever asks."""

from __future__ import annotations

from msgspec.structs import replace

from penstock.delivery import ACK, RELEASE, Dead, Delivery, RetryAt, Settlement, Verdict
from penstock.limiting import GRACE, LAG, has_expired
from penstock.message import Limit, Message
from penstock.testing.conformance.area_guards import unguarded
from penstock.testing.conformance.expect import equal, expect, instance, within
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.worker import LONG, Worker, bodies


def slowly(kit: Kit, key: str, burst: float = 1.0, concurrency: int | None = None, cost: float = 1.0) -> Limit:
    """A limit under which nothing more than the burst comes during a check."""
    return Limit(key, 0.0001 / kit.unit, burst, concurrency, cost)


def limited(kit: Kit, queue: str, limit: Limit, count: int, prefix: bytes = b"", **fields: object) -> list[Message]:
    return [kit.message(queue, b"%s%d" % (prefix, n), guards=(limit,), **fields) for n in range(count)]


async def take_all(worker: Worker, *queues: str, limit: int = 100, lease: float = LONG) -> list[Delivery]:
    """What may go now, from as many steps as the engine needs."""
    taken: list[Delivery] = []
    while len(taken) < limit:
        want = worker.demand(*queues, limit=limit - len(taken), lease=lease)
        deliveries = (await worker.step([], want)).deliveries
        if not deliveries:
            break
        taken += deliveries
    return taken


# Rate, burst and cost.


async def check_a_rate_holds_over_demands_and_workers(kit: Kit) -> None:
    limit = Limit(kit.name("key"), rate=100.0)
    if await unguarded(kit, limit):
        return
    queue, workers = await kit.queue(), (await kit.worker("one"), await kit.worker("two"))
    await kit.accept(*limited(kit, queue, limit, 300))
    count, earned, started = 0, 0.0, kit.now()
    last = started
    for turn in range(50):
        count += len((await workers[turn % 2].step([], workers[turn % 2].demand(queue, limit=40))).deliveries)
        asked = kit.now()
        await kit.pass_time(LAG / 2)
        # Who asks more often than every LAG seconds gets what the rate promises; a busy machine may ask later.
        earned += min(kit.now() - asked, LAG) * 100.0
        last = asked
    most = 100.0 * (last - started + LAG) * 1.02 + 1
    expect(
        count <= most, f"{count} were handed out in {last - started:.3f} s at 100 a second, at most {most:.1f} may be"
    )
    least = min(300.0, earned * 0.98 - 100.0 * LAG)
    expect(count >= least, f"{count} were handed out in {last - started:.3f} s at 100 a second, {least:.1f} are due")


async def check_a_burst_goes_at_once_and_no_more(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"), burst=5)
    if await unguarded(kit, limit):
        return
    queue, worker, other = await kit.queue(), await kit.worker("one"), await kit.worker("two")
    await kit.accept(*limited(kit, queue, limit, 20))
    equal(bodies(await take_all(worker, queue)), [b"0", b"1", b"2", b"3", b"4"], "a burst, in its order")
    equal(await take_all(other, queue), [], "what is handed out after it")
    within(await kit.depth(queue), (20, None), "depth with what is leased and what waits")


async def check_a_pause_earns_one_burst(kit: Kit) -> None:
    rate = 2 / kit.unit
    limit = Limit(kit.name("key"), rate=rate, burst=4)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 40))
    await take_all(worker, queue)
    started = kit.now()
    await kit.pass_time(kit.unit * 4)
    taken = await take_all(worker, queue)
    most = 4 + rate * (kit.now() - started - kit.unit * 4 + LAG) + 0.1
    expect(4 <= len(taken) <= most, f"after a pause {len(taken)} were handed out, of a burst of 4")


async def check_what_is_due_comes_in_time(kit: Kit) -> None:
    limit = Limit(kit.name("key"), rate=1 / kit.unit)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 5))
    first = kit.now()
    equal(bodies(await take_all(worker, queue)), [b"0"], "the first")
    await kit.pass_time(kit.unit * 0.5)
    early = await take_all(worker, queue)
    expect(not early or kit.now() >= first + kit.unit - LAG, f"too early by half: {early!r}")
    await kit.pass_time(kit.unit * 0.6)
    expect(early or await take_all(worker, queue), "the next, when it is due")


async def check_what_costs_more_takes_more(kit: Kit) -> None:
    key = kit.name("key")
    large, small = slowly(kit, key, 10, cost=4.0), slowly(kit, key, 10, cost=0.5)
    if await unguarded(kit, large):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, large, 3, b"large"), *limited(kit, queue, small, 1, b"small"))
    equal(bodies(await take_all(worker, queue)), [b"large0", b"large1"], "what 10 units pay, in the order of the key")


async def check_more_than_a_burst_is_paid_off_afterwards(kit: Kit) -> None:
    key = kit.name("key")
    rate = 10 / kit.unit
    large, small = Limit(key, rate=rate, burst=2, cost=21.0), Limit(key, rate=rate, burst=2)
    if await unguarded(kit, large):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, large, 1, b"large"), *limited(kit, queue, small, 1, b"small"))
    started = kit.now()
    equal(bodies(await take_all(worker, queue)), [b"large0"], "what costs more than a burst, when that is full")
    await kit.pass_time(kit.unit)
    early = await take_all(worker, queue)
    expect(not early or kit.now() >= started + kit.unit * 2 - LAG, f"before the large one was paid off: {early!r}")
    await kit.pass_time(kit.unit * 1.5)
    expect(early or await take_all(worker, queue), "what is handed out when it is paid off")


async def check_what_comes_back_pays_again(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"), burst=4)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 2))
    released, again = await take_all(worker, queue)
    await worker.finish(released, RELEASE)
    await worker.finish(again, RetryAt(kit.now(), again.message))
    for delivery in await take_all(worker, queue):
        await worker.finish(delivery, RELEASE)
    equal(await take_all(worker, queue), [], "what is handed out when 4 units are paid")
    within(await kit.depth(queue), (2, None), "depth, while both wait")


# What has expired.


def expired(kit: Kit, queue: str, limit: Limit, count: int) -> list[Message]:
    return limited(kit, queue, limit, count, b"gone", expires=kit.now() - 10.0)


async def check_what_has_expired_takes_nothing_of_a_rate(kit: Kit) -> None:
    limit = Limit(kit.name("key"), rate=1 / 60)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    begun = kit.now()
    await kit.accept(*expired(kit, queue, limit, 50), *limited(kit, queue, limit, 2, b"good"))
    taken = await take_all(worker, queue)
    wanted = [b"gone%d" % n for n in range(50)] + [b"good0"]
    equal(bodies(taken), wanted, "what goes in the first turn of a limit of 1 a minute")
    for delivery in taken:
        let_go, message = delivery.let_go, delivery.message
        expect(
            let_go is not None and begun - GRACE <= let_go <= kit.now() + GRACE, f"when it was let go, and not {let_go}"
        )
        if message is not None and message.expires is not None:
            expect(has_expired(message.expires, let_go, 0.0), "the worker is told that it was let go to be discarded")
    await kit.accept(kit.message(queue, b"free"))
    [free] = await take_all(worker, queue)
    equal(free.let_go, None, "when a message without a limit was let go")


async def check_who_lives_pays_beside_what_has_expired(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"), burst=3)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    waiting = []
    for n in range(5):
        waiting += [*expired(kit, queue, limit, 3), *limited(kit, queue, limit, 1, b"good%d" % n)]
    await kit.accept(*waiting)
    taken = bodies(await take_all(worker, queue))
    equal(
        [body for body in taken if b"good" in body], [b"good00", b"good10", b"good20"], "the live ones of a burst of 3"
    )
    equal(taken[:12], [message.body for message in waiting[:12]], "the order of what goes")


async def check_what_expires_while_it_waits_takes_no_turn(kit: Kit) -> None:
    limit = Limit(kit.name("key"), rate=1 / kit.unit)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 1, b"first"))
    await kit.accept(*limited(kit, queue, limit, 20, b"late", expires=kit.now() + kit.unit / 2))
    await kit.accept(*limited(kit, queue, limit, 1, b"good"))
    equal(bodies(await take_all(worker, queue, limit=1)), [b"first0"], "what goes first")
    await kit.pass_time(kit.unit * 1.1)
    expect(b"good0" in bodies(await take_all(worker, queue)), "the next that lives goes when the next turn comes")


async def check_what_has_expired_has_a_place_until_it_is_discarded(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"), concurrency=1)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*expired(kit, queue, limit, 2), *limited(kit, queue, limit, 2, b"good"))
    order = []
    for _ in range(3):
        [delivery] = await take_all(worker, queue)
        order += bodies([delivery])
        await worker.finish(delivery)
    equal(order, [b"gone0", b"gone1", b"good0"], "what goes, one at a time")
    equal(await take_all(worker, queue), [], "what goes when the rate is used up")


async def check_what_takes_its_place_expires_when_that_says(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"), burst=1.5)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    # Nothing is left for one that costs 1, but the limit is not closed.
    await kit.accept(*expired(kit, queue, limit, 1), *limited(kit, queue, limit, 1))
    await kit.accept(*limited(kit, queue, replace(limit, cost=0.25), 1))
    delivery, _, _ = await take_all(worker, queue)
    message = instance(delivery.message, Message, "message of a delivery")
    await worker.finish(delivery, RetryAt(kit.now(), replace(message, expires=None)))
    equal(await take_all(worker, queue), [], "what goes, and costs more than is left, and expires no more")


# Concurrency.


async def check_concurrency_counts_what_is_leased(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=3)
    if await unguarded(kit, limit):
        return
    queue, one, two = await kit.queue(), await kit.worker("one"), await kit.worker("two")
    await kit.accept(*limited(kit, queue, limit, 10))
    first = await take_all(one, queue, limit=2)
    second = await take_all(two, queue)
    equal((len(first), len(second)), (2, 1), "leased by two workers")
    equal(await take_all(one, queue), [], "what is handed out beside them")
    await one.finish(first[0])
    equal(bodies(await take_all(two, queue)), [b"3"], "when one has ended")


async def check_every_end_of_a_lease_makes_room(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=1)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 6))
    later = RetryAt(kit.now() + 1000)
    verdicts: tuple[Verdict, ...] = (ACK, RELEASE, RetryAt(kit.now()), later, Dead("no use"))
    for verdict in verdicts:
        [delivery] = await take_all(worker, queue)
        await worker.finish(delivery, verdict)
    equal(len(await take_all(worker, queue)), 1, "leased after all verdicts")


async def check_a_lost_lease_makes_room(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=2)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 5))
    lost = await take_all(worker, queue, lease=kit.unit)
    equal(len(lost), 2, "leased")
    await kit.expire(worker)
    heir = await kit.worker("heir")
    found = await take_all(heir, queue)
    equal(len(found), 2, "leased when the leases of another ran out")
    await worker.settle(*(Settlement(one.receipt, ACK) for one in lost))
    equal(await take_all(heir, queue), [], "what settlements of lost leases make room for")


async def check_the_dead_and_those_who_leave_make_room(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=2)
    if await unguarded(kit, limit):
        return
    queue, dead, leaves = await kit.queue(), await kit.worker("dead"), await kit.worker("leaves")
    await kit.accept(*limited(kit, queue, limit, 5))
    equal(len(await take_all(dead, queue)), 2, "leased")
    await kit.kill(dead)
    await kit.call(kit.coordinator.bury(dead.id))
    equal(len(await take_all(leaves, queue)), 2, "leased when a worker was buried")
    await kit.call(leaves.engine.coordinator.leave(leaves.id), leaves.engine)
    heir = await kit.worker("heir")
    equal(len(await take_all(heir, queue)), 2, "leased when a worker has left")


async def check_settling_and_reserving_in_one_step(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=2)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 6))
    taken = await take_all(worker, queue)
    for wanted in ([b"2", b"3"], [b"4", b"5"]):
        settle = [Settlement(one.receipt, ACK) for one in taken]
        taken = list((await worker.step(settle, worker.demand(queue, limit=10))).deliveries)
        taken += await take_all(worker, queue)
        equal(bodies(taken), wanted, "what takes the place of what was settled")


async def check_rate_and_concurrency_hold_together(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"), burst=3, concurrency=2)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 10))
    taken = await take_all(worker, queue)
    equal(len(taken), 2, "leased at once")
    for delivery in taken:
        await worker.finish(delivery)
    equal(len(await take_all(worker, queue)), 1, "what is left of the burst")


CHECKS = (
    check_a_rate_holds_over_demands_and_workers,
    check_a_burst_goes_at_once_and_no_more,
    check_a_pause_earns_one_burst,
    check_what_is_due_comes_in_time,
    check_what_costs_more_takes_more,
    check_more_than_a_burst_is_paid_off_afterwards,
    check_what_comes_back_pays_again,
    check_what_has_expired_takes_nothing_of_a_rate,
    check_who_lives_pays_beside_what_has_expired,
    check_what_expires_while_it_waits_takes_no_turn,
    check_what_has_expired_has_a_place_until_it_is_discarded,
    check_what_takes_its_place_expires_when_that_says,
    check_concurrency_counts_what_is_leased,
    check_every_end_of_a_lease_makes_room,
    check_a_lost_lease_makes_room,
    check_the_dead_and_those_who_leave_make_room,
    check_settling_and_reserving_in_one_step,
    check_rate_and_concurrency_hold_together,
)
