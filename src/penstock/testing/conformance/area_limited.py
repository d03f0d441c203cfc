"""What waits for its limit waits in its queue, is woken when it may go, ends like all else, and holds up no other."""

from __future__ import annotations

import time

from penstock.delivery import Dead, RetryAt
from penstock.effects import Publish
from penstock.limiting import LAG
from penstock.message import Limit
from penstock.testing.conformance.area_guards import unguarded
from penstock.testing.conformance.area_limit import limited, slowly, take_all
from penstock.testing.conformance.expect import equal, expect, within
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import bodies

PROMPT = 3.0
"""Seconds: less than an engine waits before it looks without being woken."""
SOON = 0.4
"""Seconds, of a real clock, until what a step waits for may go."""


# Neighbours.


async def check_neighbours_are_not_held_up(kit: Kit) -> None:
    limit, other = slowly(kit, kit.name("key")), slowly(kit, kit.name("other"))
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 200, b"slow"))
    await kit.accept(*limited(kit, queue, other, 2, b"other"), kit.message(queue, b"free"), kit.message(queue, b"free"))
    taken = sorted(bodies(await take_all(worker, queue)))
    equal(taken, [b"free", b"free", b"other0", b"slow0"], "what may go beside a key that waits")
    await kit.accept(kit.message(queue, b"late"))
    equal(bodies(await take_all(worker, queue)), [b"late"], "what comes later and has no limit")


async def check_many_keys_each_have_their_turn(kit: Kit) -> None:
    name = kit.name("key")
    if await unguarded(kit, Limit(name, concurrency=1)):
        return
    queue, worker = await kit.queue(), await kit.worker()
    messages = [one for n in range(60) for one in limited(kit, queue, Limit(f"{name}-{n}", concurrency=1), 3)]
    await kit.accept(*messages)
    equal(bodies(await take_all(worker, queue, limit=200)), [b"0"] * 60, "the first of each key")


async def check_one_limit_for_all_queues_of_a_namespace(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=1)
    if await unguarded(kit, limit):
        return
    one, two, worker, tenant = await kit.queue(), await kit.queue(), await kit.worker(), kit.name("tenant")
    await kit.accept(*limited(kit, one, limit, 1), *limited(kit, two, limit, 1))
    await kit.accept(*limited(kit, one, limit, 1, namespace=tenant))
    [first] = await take_all(worker, one)
    equal(await take_all(worker, two), [], "what of the same key is handed out from another queue")
    theirs = (await worker.step([], worker.demand(one, namespace=tenant))).deliveries
    equal(len(theirs), 1, "what of the same key is handed out in another namespace")
    await worker.finish(first)
    equal(len(await take_all(worker, two)), 1, "what is handed out from it when the first has ended")


async def check_priorities_below_one_limit(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=1)
    if await unguarded(kit, limit) or not kit.features.priority:
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(
        *limited(kit, queue, limit, 2, b"low", priority=1), *limited(kit, queue, limit, 2, b"high", priority=9)
    )
    order = []
    for _ in range(4):
        [delivery] = await take_all(worker, queue)
        order += bodies([delivery])
        await worker.finish(delivery)
    equal(order, [b"high0", b"high1", b"low0", b"low1"], "the order below a limit")


async def check_an_urgent_key_that_waits_lets_others_go(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"))
    if await unguarded(kit, limit) or not kit.features.priority:
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 3, b"urgent", priority=9), kit.message(queue, b"low", priority=0))
    equal(bodies(await take_all(worker, queue)), [b"urgent0", b"low"], "what may go")


async def check_partitions_share_a_limit(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=1)
    if await unguarded(kit, limit) or not kit.features.partition:
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 20, b"a", partition="a"))
    await kit.accept(*limited(kit, queue, limit, 1, b"b", partition="b"))
    taken = []
    for _ in range(3):
        [delivery] = await take_all(worker, queue)
        taken += bodies([delivery])
        await worker.finish(delivery)
    expect(b"b0" in taken, f"a quiet partition is among the next three below a limit, but these came: {taken}")


# Waiting.


async def check_a_waiting_step_wakes_when_the_next_is_due(kit: Kit) -> None:
    limit = Limit(kit.name("key"), rate=1 / SOON)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 2))
    due = kit.now() + SOON - LAG
    await take_all(worker, queue, limit=1)
    started = time.monotonic()
    waiting = kit.start(worker.committer.step([], worker.demand(queue, wait=60.0)), worker.engine)
    await kit.pass_time(SOON)
    equal(bodies((await waiting.end()).deliveries), [b"1"], "what a waiting step brought")
    expect(
        time.monotonic() - started < SOON + PROMPT,
        "who waits for a limit is woken, and does not only look now and then",
    )
    expect(kit.now() >= due - 0.001, "what a limit holds back is never early")


async def check_a_waiting_step_wakes_when_there_is_room(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=1)
    if await unguarded(kit, limit):
        return
    queue, worker, other = await kit.queue(), await kit.worker("one"), await kit.worker("two")
    await kit.accept(*limited(kit, queue, limit, 2))
    [first] = await take_all(worker, queue)
    waiting = kit.start(other.committer.step([], other.demand(queue, wait=60.0)), other.engine)
    await kit.threaded(lambda: time.sleep(0.2))
    expect(not waiting.ended(), "a step waits while there is no room")
    settled = time.monotonic()
    await worker.finish(first)
    equal(bodies((await waiting.end()).deliveries), [b"1"], "what a waiting step brought")
    expect(time.monotonic() - settled < PROMPT, "who waits for room is woken, and does not only look now and then")


async def check_what_is_delayed_waits_for_its_limit_too(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"), burst=2)
    if await unguarded(kit, limit) or not kit.features.delay:
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 3, eta=kit.now() + kit.unit))
    equal(await take_all(worker, queue), [], "what is not due")
    await kit.pass_time(kit.unit * 1.5)
    await kit.call(kit.coordinator.reap())
    equal(len(await take_all(worker, queue)), 2, "what is due, and may go")


async def check_what_follows_is_limited_as_well(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"))
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.fill(queue, 1)
    [first] = await take_all(worker, queue)
    follow = [kit.message(queue, b"%d" % n, id=kit.name("id"), guards=(limit,)) for n in range(3)]
    if "Publish" in kit.features.effects:
        await worker.finish(first, effects=[Publish(one) for one in follow[:2]])
    else:
        await kit.call(kit.broker.follow_up(follow[:2], PUBLISH_TIMEOUT))
    await kit.call(kit.broker.follow_up(follow[2:], PUBLISH_TIMEOUT))
    equal(len(await take_all(worker, queue)), 1, "what of three that followed may go")


async def check_the_newest_parameters_hold(kit: Kit) -> None:
    key = kit.name("key")
    if await unguarded(kit, slowly(kit, key)):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, slowly(kit, key), 5, b"old"))
    equal(len(await take_all(worker, queue)), 1, "at the old rate")
    await kit.accept(*limited(kit, queue, Limit(key, concurrency=3), 1, b"new"))
    equal(len(await take_all(worker, queue)), 2, "without a rate, three at a time")
    await kit.accept(*limited(kit, queue, Limit(key), 1, b"newest"))
    equal(len(await take_all(worker, queue)), 4, "without any limit")


async def check_a_retry_is_not_the_newest(kit: Kit) -> None:
    key = kit.name("key")
    if await unguarded(kit, slowly(kit, key)):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, Limit(key, concurrency=1), 1))
    [old] = await take_all(worker, queue)
    await kit.accept(*limited(kit, queue, Limit(key, concurrency=3), 5))
    await worker.finish(old, RetryAt(kit.now(), old.message))
    equal(len(await take_all(worker, queue)), 3, "leased, as the newest message says")


# What becomes of those that wait.


async def check_what_waits_counts_and_can_be_purged(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=1)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    ids = await kit.accept(*limited(kit, queue, limit, 5))
    [first] = await take_all(worker, queue)
    within(await kit.depth(queue), (5, None), "depth with what waits for a limit")
    equal(await kit.call(kit.inspect.purge(queue)), 4, "purged")
    await kit.ended_revoked(*ids[1:])
    await worker.finish(first)
    await kit.accept(*limited(kit, queue, limit, 2, b"new"))
    equal(bodies(await take_all(worker, queue)), [b"new0"], "what may go after a purge")


async def check_what_waits_can_be_revoked(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=1)
    if await unguarded(kit, limit) or not (kit.features.revoke_queued and kit.features.coordination):
        return
    queue, worker = await kit.queue(), await kit.worker()
    _, second, _ = await kit.accept(*limited(kit, queue, limit, 3))
    [first] = await take_all(worker, queue)
    await kit.call(kit.coordinator.revoke([second]))
    await kit.ended_revoked(second)
    equal(await take_all(worker, queue), [], "what a revocation of one that waits makes room for")
    await worker.finish(first)
    equal(bodies(await take_all(worker, queue)), [b"2"], "what may go when the first has ended")


async def check_a_paused_queue_keeps_its_limits(kit: Kit) -> None:
    limit = slowly(kit, kit.name("key"), burst=2)
    if await unguarded(kit, limit) or not kit.features.pause:
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(*limited(kit, queue, limit, 5))
    await kit.call(kit.inspect.pause(queue))
    equal(await take_all(worker, queue), [], "what is handed out of a paused queue")
    await kit.call(kit.inspect.resume(queue))
    equal(len(await take_all(worker, queue)), 2, "what is handed out when it is resumed")


async def check_a_dead_letter_comes_back_with_its_limit(kit: Kit) -> None:
    limit = Limit(kit.name("key"), concurrency=1)
    if await unguarded(kit, limit):
        return
    queue, worker = await kit.queue(), await kit.worker()
    [task_id, _] = await kit.accept(*limited(kit, queue, limit, 2))
    [first] = await take_all(worker, queue)
    await worker.finish(first, Dead("no use"))
    await kit.call(kit.inspect.retry_dead([task_id]))
    equal(len(await take_all(worker, queue)), 1, "leased of two, one of them from the dead letters")


async def check_absurd_limits_are_refused(kit: Kit) -> None:
    key = kit.name("key")
    if await unguarded(kit, Limit(key)):
        return
    queue, worker = await kit.queue(), await kit.worker()
    inf = float("inf")
    absurd = (
        *(Limit(key, rate=rate) for rate in (0.0, -1.0, inf, float("nan"))),
        *(Limit(key, rate=1.0, cost=cost) for cost in (0.0, -1.0, inf)),
        *(Limit(key, rate=1.0, burst=burst) for burst in (0.0, inf)),
        Limit(key, concurrency=0),
        Limit(""),
        Limit("k" * 201),
    )
    for limit in absurd:
        await kit.refused(kit.broker.publish(limited(kit, queue, limit, 1), PUBLISH_TIMEOUT), f"{limit!r}")
    two = kit.message(queue, guards=(Limit(key), Limit(f"{key}-2")))
    await kit.refused(kit.broker.publish([two], PUBLISH_TIMEOUT), "two limits")
    await worker.nothing(queue)


CHECKS = (
    check_neighbours_are_not_held_up,
    check_many_keys_each_have_their_turn,
    check_one_limit_for_all_queues_of_a_namespace,
    check_priorities_below_one_limit,
    check_an_urgent_key_that_waits_lets_others_go,
    check_partitions_share_a_limit,
    check_a_waiting_step_wakes_when_the_next_is_due,
    check_a_waiting_step_wakes_when_there_is_room,
    check_what_is_delayed_waits_for_its_limit_too,
    check_what_follows_is_limited_as_well,
    check_the_newest_parameters_hold,
    check_a_retry_is_not_the_newest,
    check_what_waits_counts_and_can_be_purged,
    check_what_waits_can_be_revoked,
    check_a_paused_queue_keeps_its_limits,
    check_a_dead_letter_comes_back_with_its_limit,
    check_absurd_limits_are_refused,
)
