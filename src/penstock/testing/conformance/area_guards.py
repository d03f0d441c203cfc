"""Guards: unique keys, repeats within a time, and fences, decided where the message is stored."""

from __future__ import annotations

from msgspec.structs import replace

from penstock.broker import Accepted, Answer, Cancelled, Conflict, Duplicate, Fenced, Lost, keeps_guard
from penstock.delivery import ACK, RetryAt
from penstock.effects import Effect, ReleaseKey
from penstock.message import Dedup, Fence, Guard, Message, Unique
from penstock.outcome import Outcome, State
from penstock.testing.conformance.expect import Violation, equal, expect, instance, within
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import LONG, bodies, success


async def unguarded(kit: Kit, guard: Guard) -> bool:
    """True for an engine without this kind of guard, after making sure that it refuses it."""
    if keeps_guard(kit.features, guard):
        return False
    kind = type(guard).__name__
    queue, worker = await kit.queue(), await kit.worker()
    await kit.refused(kit.broker.publish([kit.message(queue, guards=(guard,))], PUBLISH_TIMEOUT), f"guard {kind}")
    await worker.nothing(queue)
    return True


def freed(key: str) -> list[Effect]:
    """What the runtime adds to the end of a task with a unique key."""
    return [ReleaseKey(key)]


def conflict_with(kit: Kit, answer: Answer, key: str, holder: str) -> None:
    found = instance(answer, Conflict, "publish of a held unique key")
    equal(found.unique, key, "key of the conflict")
    within(None if found.key is None else kit.public_id(found.key), (holder, None), "holder of the conflict")


async def check_unique_key_is_held_until_done(kit: Kit) -> None:
    guard = Unique(kit.name("key"))
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, guards=(guard,))
    [holder] = await kit.accept(message)
    conflict_with(kit, (await kit.publish(message))[0], guard.key, holder)
    within(await kit.depth(queue), (1, None), "depth after a conflict")
    delivery = await worker.take_one(queue)
    worker.start(delivery)
    conflict_with(kit, (await kit.publish(message))[0], guard.key, holder)
    await worker.finish(delivery, RetryAt(kit.now(), message))
    conflict_with(kit, (await kit.publish(message))[0], guard.key, holder)
    await worker.finish(await worker.take_one(queue), ACK, success(kit), freed(guard.key))
    await kit.accept(message)
    await worker.take(queue)
    await worker.nothing(queue)


async def check_unique_key_is_free_when_started(kit: Kit) -> None:
    guard = Unique(kit.name("key"), until="start")
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, guards=(guard,))
    [holder] = await kit.accept(message)
    conflict_with(kit, (await kit.publish(message))[0], guard.key, holder)
    worker.start(await worker.take_one(queue))
    [second] = await kit.accept(message)
    conflict_with(kit, (await kit.publish(message))[0], guard.key, second)


async def check_unique_key_is_free_after_its_ttl(kit: Kit) -> None:
    guard = Unique(kit.name("key"), ttl=kit.unit)
    if await unguarded(kit, guard):
        return
    queue = await kit.queue()
    message = kit.message(queue, guards=(guard,))
    await kit.accept(message)
    await kit.pass_time(kit.unit * 1.5)
    await kit.accept(message)


async def check_an_old_holder_does_not_free_its_heirs_key(kit: Kit) -> None:
    guard = Unique(kit.name("key"), ttl=kit.unit)
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    await kit.accept(kit.message(queue, guards=(guard,)))
    old = await worker.take_one(queue)
    await kit.pass_time(kit.unit * 1.5)
    lasting = kit.message(queue, guards=(Unique(guard.key),))
    [heir] = await kit.accept(lasting)
    await worker.finish(old, ACK, success(kit), freed(guard.key))
    conflict_with(kit, (await kit.publish(lasting))[0], guard.key, heir)


async def check_unique_keys_are_apart(kit: Kit) -> None:
    key = kit.name("key")
    if await unguarded(kit, Unique(key)):
        return
    queue = await kit.queue()
    await kit.accept(*(kit.message(queue, guards=(Unique(f"{key}-{n}"),)) for n in range(3)))


async def check_unique_key_within_one_batch(kit: Kit) -> None:
    guard = Unique(kit.name("key"))
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, guards=(guard,))
    first, second, third = await kit.publish(message, message, kit.message(queue))
    holder = kit.public_id(instance(first, Accepted, "first of a key in a batch").key)
    conflict_with(kit, second, guard.key, holder)
    instance(third, Accepted, "another message beside a conflict")
    await worker.take(queue, count=2)
    await worker.nothing(queue)


async def check_a_refused_message_holds_no_key(kit: Kit) -> None:
    guard = Unique(kit.name("key"))
    if await unguarded(kit, guard) or kit.features.bound != "exact":
        return
    full, free = await kit.queue(max_length=1), await kit.queue()
    await kit.fill(full, 1)
    await kit.publish(kit.message(full, guards=(guard,)))
    await kit.accept(kit.message(free, guards=(guard,)))


async def check_a_conflict_is_not_a_refusal_of_its_neighbours(kit: Kit) -> None:
    guard = Unique(kit.name("key"))
    if await unguarded(kit, guard):
        return
    queue = await kit.queue(max_length=2) if kit.features.bound == "exact" else await kit.queue()
    message = kit.message(queue, guards=(guard,))
    await kit.accept(message)
    first, second = await kit.publish(message, kit.message(queue))
    instance(first, Conflict, "a conflict in a queue with room for one")
    instance(second, Accepted, "the one that there was room for")


async def check_unique_key_is_held_for_its_ttl_even_when_done(kit: Kit) -> None:
    guard = Unique(kit.name("key"), "ttl", kit.unit * 2)
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, guards=(guard,))
    [holder] = await kit.accept(message)
    await worker.finish(await worker.take_one(queue), ACK, success(kit))
    conflict_with(kit, (await kit.publish(message))[0], guard.key, holder)
    await kit.pass_time(kit.unit * 2.5)
    await kit.accept(message)


async def check_the_newest_replaces_one_that_waits(kit: Kit) -> None:
    guard = Unique(kit.name("key"), on_conflict="replace")
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    ids = [(await kit.accept(kit.message(queue, b"%d" % n, guards=(guard,))))[0] for n in range(3)]
    await kit.ended_revoked(*ids[:2])
    within(await kit.depth(queue), (1, None), "depth when two were replaced")
    conflict_with(kit, (await kit.publish(kit.message(queue, guards=(Unique(guard.key),))))[0], guard.key, ids[2])
    equal(bodies(await worker.take(queue)), [b"2"], "what is delivered of three that replaced each other")
    await worker.nothing(queue)


async def check_the_newest_replaces_one_that_is_delayed(kit: Kit) -> None:
    guard = Unique(kit.name("key"), "start", on_conflict="replace")
    if await unguarded(kit, guard) or not kit.features.delay:
        return
    queue, worker = await kit.queue(), await kit.worker()
    for number in range(3):
        await kit.accept(kit.message(queue, b"%d" % number, eta=kit.now() + kit.unit, guards=(guard,)))
        await kit.pass_time(kit.unit * 0.5)
    within(await kit.depth(queue), (1, None), "depth when two were replaced")
    await kit.pass_time(kit.unit)
    await kit.call(kit.coordinator.reap())
    equal(bodies(await worker.take(queue)), [b"2"], "what is delivered of three that replaced each other")
    await worker.nothing(queue)


async def check_one_that_runs_goes_on_without_the_key(kit: Kit) -> None:
    guard = Unique(kit.name("key"), on_conflict="replace")
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, guards=(guard,))
    [old_id] = await kit.accept(message)
    old = await worker.take_one(queue)
    [heir] = await kit.accept(message)
    [lease] = await kit.call(worker.broker.extend([old.receipt], LONG), worker.engine)
    expect(not isinstance(lease, Cancelled | Lost), f"one that runs is not revoked, but: {lease!r}")
    await worker.finish(old, ACK, success(kit), freed(guard.key))
    [report] = await kit.fetch(old_id)
    equal(report.state, State.SUCCESS, "state of one that ran when it was replaced")
    conflict_with(kit, (await kit.publish(kit.message(queue, guards=(Unique(guard.key),))))[0], guard.key, heir)
    equal(worker.ids_of(await worker.take(queue)), [heir], "delivered afterwards")


async def check_the_newest_cancels_the_holder(kit: Kit) -> None:
    guard = Unique(kit.name("key"), on_conflict="cancel")
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, guards=(guard,))
    [waited] = await kit.accept(message)
    [ran] = await kit.accept(message)
    await kit.ended_revoked(waited)
    running = await worker.take_one(queue)
    equal(worker.id_of(running), ran, "delivered when one that waited was cancelled")
    [heir] = await kit.accept(message)
    [lease] = await kit.call(worker.broker.extend([running.receipt], LONG), worker.engine)
    equal(lease, Cancelled(True), "the lease of one that was cancelled")
    await worker.finish(running, ACK, Outcome(State.REVOKED, b"", kit.now()), freed(guard.key))
    equal(worker.ids_of(await worker.take(queue)), [heir], "delivered afterwards")
    await worker.nothing(queue)


async def check_within_one_batch_the_last_replaces(kit: Kit) -> None:
    guard = Unique(kit.name("key"), on_conflict="replace")
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    first, _ = await kit.accept(*(kit.message(queue, b"%d" % n, guards=(guard,)) for n in range(2)))
    equal(bodies(await worker.take(queue)), [b"1"], "delivered of a batch of two with one key")
    await worker.nothing(queue)
    await kit.ended_revoked(first)


async def check_a_refused_message_replaces_nothing(kit: Kit) -> None:
    guard = Unique(kit.name("key"), on_conflict="replace")
    if await unguarded(kit, guard) or kit.features.bound != "exact":
        return
    free, full, worker = await kit.queue(), await kit.queue(max_length=1), await kit.worker()
    await kit.fill(full, 1)
    await kit.accept(kit.message(free, b"kept", guards=(guard,)))
    await kit.publish(kit.message(full, guards=(guard,)))
    equal(bodies(await worker.take(free)), [b"kept"], "what a refused message would have replaced")


async def check_a_repeat_does_not_replace_its_first(kit: Kit) -> None:
    guard = Unique(kit.name("key"), on_conflict="cancel")
    if await unguarded(kit, guard) or not kit.features.knows_ids:
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, id=kit.name("id"), guards=(guard,))
    await kit.accept(message)
    instance((await kit.publish(message))[0], Duplicate, "repeat of a message that replaces")
    await worker.take(queue)


async def check_an_end_of_a_key_that_nobody_holds_replaces_nothing(kit: Kit) -> None:
    guard = Unique(kit.name("key"), on_conflict="replace")
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, guards=(guard,))
    [first] = await kit.accept(message)
    await worker.finish(await worker.take_one(queue), ACK, success(kit), freed(guard.key))
    await kit.accept(message)
    [report] = await kit.fetch(first)
    equal(report.state, State.SUCCESS, "state of one that had ended before the next came")
    await worker.take(queue)


async def check_dedup_recognises_a_repeat_even_when_it_ended(kit: Kit) -> None:
    guard = Dedup(kit.name("key"), kit.unit * 10)
    if await unguarded(kit, guard):
        return
    queue, worker = await kit.queue(), await kit.worker()
    message = kit.message(queue, guards=(guard,))
    [first] = await kit.accept(message)
    await repeat(kit, message, first)
    await worker.finish(await worker.take_one(queue), outcome=success(kit))
    await repeat(kit, message, first)
    await worker.nothing(queue)


async def check_dedup_forgets_after_its_ttl(kit: Kit) -> None:
    guard = Dedup(kit.name("key"), kit.unit)
    if await unguarded(kit, guard):
        return
    message = kit.message(await kit.queue(), guards=(guard,))
    [first] = await kit.accept(message)
    await kit.pass_time(kit.unit * 1.5)
    [second] = await kit.accept(message)
    if first == second:
        raise Violation("a message after the time of its Dedup is a new task")


async def check_fence(kit: Kit) -> None:
    name = kit.name("lease")
    if await unguarded(kit, Fence(name, 1)):
        return
    queue, worker = await kit.queue(), await kit.worker()
    token = instance(await kit.call(kit.coordinator.acquire(name, "me", kit.unit)), int, "token")
    current = kit.message(queue, guards=(Fence(name, token),))
    await kit.accept(current)
    for stale in (Fence(name, token + 1), Fence(kit.name("other"), 1)):
        await fenced(kit, kit.message(queue, guards=(stale,)))
    await kit.pass_time(kit.unit * 1.5)
    await fenced(kit, current)
    await kit.call(kit.coordinator.acquire(name, "you", kit.unit * 10))
    await fenced(kit, current)
    await worker.take(queue)
    await worker.nothing(queue)


async def repeat(kit: Kit, message: Message, first: str) -> None:
    [answer] = await kit.publish(message)
    equal(kit.public_id(instance(answer, Duplicate, "repeat of a Dedup key").key), first, "key of the first")


async def fenced(kit: Kit, message: Message) -> None:
    """A message whose fence is not current is refused, and what is beside it is not."""
    neighbour = kit.message(kit.name("free"))
    accepted, answer = await kit.publish(neighbour, message)
    instance(accepted, Accepted, "a message beside one whose fence is not current")
    equal(answer, Fenced(stale_name(message)), "a message whose fence is not current")
    [answer] = await kit.call(kit.broker.follow_up([replace(message, id=kit.name("id"))], PUBLISH_TIMEOUT))
    equal(answer, Fenced(stale_name(message)), "a follow-up whose fence is not current")


def stale_name(message: Message) -> str:
    return next(guard.name for guard in message.guards if isinstance(guard, Fence))


CHECKS = (
    check_unique_key_is_held_until_done,
    check_unique_key_is_free_when_started,
    check_unique_key_is_free_after_its_ttl,
    check_an_old_holder_does_not_free_its_heirs_key,
    check_unique_keys_are_apart,
    check_unique_key_within_one_batch,
    check_a_refused_message_holds_no_key,
    check_a_conflict_is_not_a_refusal_of_its_neighbours,
    check_unique_key_is_held_for_its_ttl_even_when_done,
    check_the_newest_replaces_one_that_waits,
    check_the_newest_replaces_one_that_is_delayed,
    check_one_that_runs_goes_on_without_the_key,
    check_the_newest_cancels_the_holder,
    check_within_one_batch_the_last_replaces,
    check_a_refused_message_replaces_nothing,
    check_a_repeat_does_not_replace_its_first,
    check_an_end_of_a_key_that_nobody_holds_replaces_nothing,
    check_dedup_recognises_a_repeat_even_when_it_ended,
    check_dedup_forgets_after_its_ttl,
    check_fence,
)
