"""Guards: unique keys, repeats within a time, and fences, decided where the message is stored."""

from __future__ import annotations

from msgspec.structs import replace

from penstock.broker import Accepted, Answer, Conflict, Duplicate, Fenced, keeps_guard
from penstock.delivery import ACK, RetryAt
from penstock.effects import Effect, ReleaseKey
from penstock.message import Dedup, Fence, Guard, Message, Unique
from penstock.testing.conformance.expect import Violation, equal, instance, within
from penstock.testing.conformance.kit import PUBLISH_TIMEOUT, Kit
from penstock.testing.conformance.worker import success


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
    check_dedup_recognises_a_repeat_even_when_it_ended,
    check_dedup_forgets_after_its_ttl,
    check_fence,
)
