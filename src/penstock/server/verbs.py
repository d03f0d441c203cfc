"""What a broker does for each verb of a `CallRequest`: the right it needs, and the engine's own call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from penstock.broker import Key
from penstock.coordinator import WorkerInfo
from penstock.engines.sqlite.ids import FIRST_TASK
from penstock.errors import ConfigError, PenstockError
from penstock.guarding import MAX_KEY
from penstock.outcome import Outcome, Parts, Progress, Report, State
from penstock.protocol import calls
from penstock.protocol.frames import MAX_FRAME
from penstock.protocol.replies import Value
from penstock.protocol.requests import CallRequest
from penstock.queue import Queue, check_name
from penstock.server.access.rights import Right
from penstock.server.checking import check_outcome, check_progress, check_seconds, check_values, check_worker
from penstock.server.rights_check import MAX_LEASE

if TYPE_CHECKING:
    from penstock.server.session import ClientSession

MAX_LISTED = 10_000
ANSWER = 8 << 20
"""Bytes of results in one answer; a larger one comes alone."""
OVERHEAD = 256
"""Bytes of a report besides its result, about."""
MAX_FETCHED = 1_000
"""Reports of one answer: it takes some ten milliseconds."""
FETCHED_AT_ONCE = 32
"""Results that are in memory together: each may have megabytes."""
MAX_ANSWER = MAX_FRAME - (1 << 10)
MAX_VALUE = 4 << 20
"""Bytes of a value of the shared state."""
MAX_WORKERS = 256
"""Workers of one connection: a process has one, and a supervisor may speak for all of its own."""


class Call:
    """One call, until it is answered."""

    __slots__ = ("request", "session", "size")

    def __init__(self, session: ClientSession, request: CallRequest, size: int) -> None:
        self.session, self.request, self.size = session, request, size

    def answer(self, value: object) -> None:
        """When what it changed is durable."""
        session, number, data = self.session, self.request.number, calls.encode(value)
        if len(data) > MAX_ANSWER:
            self.fail(ConfigError(f"an answer of {len(data):,} bytes; a frame takes {MAX_ANSWER:,}: ask for fewer"))
            return
        session.peer.began(self.size)

        def send() -> None:
            session.peer.answered(self.size)
            session.peer.send(Value(number, Raw(data)))

        session.space.turns.after_sync(send)

    def fail(self, error: BaseException) -> None:
        self.session.fail(self.request.number, error)

    async def answer_later(self, value: Awaitable[object]) -> None:
        """For what takes long, in steps between which others have their turns."""
        try:
            self.answer(await value)
        except Exception as error:  # one client's request is not another's trouble
            self.fail(error)


def verb(act: Callable[..., object]) -> Callable[[Call], None]:
    """A handler from a function of the session and the verb's arguments."""
    name = act.__name__

    def handle(call: Call) -> None:
        try:
            arguments = calls.VERBS[name].read_arguments(call.request.arguments)
            value = act(call.session, *arguments)
        except (PenstockError, msgspec.DecodeError, UnicodeDecodeError) as error:
            call.fail(error)
        except Exception as error:  # one client's request is not another's trouble
            call.fail(error)
        else:
            if isinstance(value, Awaitable):
                call.session.spawn(call.answer_later(value))
            else:
                call.answer(value)

    return handle


def _run(session: ClientSession, call: Coroutine[Any, Any, Any]) -> Any:
    return session.space.engine.run(call)


def extend(s: ClientSession, pairs: Sequence[tuple[int, int]], lease: float) -> object:
    check_seconds("lease", lease, MAX_LEASE)
    for token in {token for token, _ in pairs}:
        s.rights.lease(token)
    return _run(s, s.space.engine.broker.extend(pairs, lease))


def depth(s: ClientSession, queue: str, namespace: str) -> object:
    if not s.rights.may(Right.WRITE, queue):
        s.rights.need(Right.READ, "queue", queue)
    return _run(s, s.space.engine.broker.depth(queue, namespace))


# Results.


def store(s: ClientSession, outcomes: Sequence[tuple[Key, Outcome]]) -> object:
    for key, outcome in outcomes:
        _worked_on(s, key)
        check_outcome(outcome)
    return _run(s, s.space.engine.backend.store(outcomes))


def fetch(s: ClientSession, keys: Sequence[Key]) -> object:
    """Fewer than were asked for, when more would not fit into a frame: the first of them."""
    found: list[Report] = []
    room = ANSWER
    for start in range(0, len(keys), FETCHED_AT_ONCE):
        some = keys[start : start + FETCHED_AT_ONCE]
        seen = [key for key in some if s.rights.sees(key)]
        reports = iter(_run(s, s.space.engine.backend.fetch(seen)))
        visible = set(seen)
        for key in some:
            report = next(reports) if key in visible else Report(_id(s, key), State.UNKNOWN)
            room -= OVERHEAD + (len(report.outcome.value) if report.outcome is not None else 0)
            if (room < 0 and found) or len(found) >= MAX_FETCHED:
                return found
            found.append(report)
    return found


def forget(s: ClientSession, keys: Sequence[Key]) -> object:
    return _run(s, s.space.engine.backend.forget([key for key in keys if s.rights.sees(key)]))


def note(s: ClientSession, key: Key, progress: Progress) -> object:
    _worked_on(s, key)
    check_progress(progress)
    return _run(s, s.space.engine.backend.note(key, progress))


def append(s: ClientSession, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> object:
    _worked_on(s, key)
    check_values(values)
    store = s.space.store
    row = store.change(lambda wake: store.append(key, run, mark, values), durable=False, heavy=False)
    if row is None:
        return False
    store.ears.added(row)
    return True


def parts(s: ClientSession, key: Key, offset: int, limit: int) -> object:
    if not s.rights.sees(key):
        return Parts(0, 0, (), ended=True)
    return _run(s, s.space.engine.backend.parts(key, offset, limit))


def _worked_on(s: ClientSession, key: Key) -> None:
    """What became of a task of ours, those tell who may take it; of one that was never seen here, which is elsewhere
    or still to come, those who work on something here: not who may only publish."""
    _seen(s, key)
    row = s.space.store.row_of(key)
    if row is None or row < FIRST_TASK:
        s.rights.consumer()
        return
    place = s.space.store.place(row)
    if place is None:  # its number is still to be given, to somebody's task
        raise ConfigError(f"task {_id(s, key)} is not known here")
    s.rights.need(Right.READ, "queue", place[1])


def _seen(s: ClientSession, key: Key) -> None:
    if not s.rights.sees(key):
        raise ConfigError(f"task {_id(s, key)} is not known here")
    if isinstance(key, str) and not 0 < len(key) <= MAX_KEY:
        raise ConfigError(f"a task's id has 1 to {MAX_KEY} characters, not {len(key):,}")


def _id(s: ClientSession, key: Key) -> str:
    if isinstance(key, str):
        return key
    return s.space.store.ids.make(key)


# Coordination.


def revoke(s: ClientSession, keys: Sequence[Key], terminate: bool) -> object:
    for key in keys:
        _seen(s, key)
        row = s.space.store.row_of(key)
        place = None if row is None else s.space.store.place(row)
        if place is not None:
            s.rights.need(Right.WRITE, "queue", place[1])
    return _run(s, s.space.engine.coordinator.revoke(keys, terminate))


def join(s: ClientSession, worker: WorkerInfo) -> object:
    s.rights.worker(worker.id)
    check_worker(worker)
    for queue in worker.queues:
        s.rights.need(Right.READ, "queue", queue)
    if worker.id not in s.workers and len(s.workers) >= MAX_WORKERS:
        raise ConfigError(
            f"{MAX_WORKERS} workers have joined on this connection, as many as one may have: let some leave, or use "
            "another connection"
        )
    s.space.crew.join(worker.id, s.identity.user, s)
    s.workers.add(worker.id)
    return _run(s, s.space.engine.coordinator.join(worker))


def renew(s: ClientSession, workers: Sequence[str], lease: float) -> object:
    check_seconds("lease", lease, MAX_LEASE)
    for worker in workers:
        s.rights.worker(worker)
        s.space.crew.renew(worker)
    return _run(s, s.space.engine.coordinator.renew(workers, lease))


def leave(s: ClientSession, worker: str) -> object:
    s.rights.worker(worker)
    s.workers.discard(worker)
    return _run(s, s.space.engine.coordinator.leave(worker))


def bury(s: ClientSession, worker: str, started: Sequence[tuple[int, int]]) -> object:
    s.rights.worker(worker)
    if s.space.crew.user_of(worker) is None:  # it joined before this broker was started
        s.space.crew.join(worker, s.identity.user, s)
    s.space.crew.note(worker, started)
    s.workers.discard(worker)
    return _run(s, s.space.engine.coordinator.bury(worker))


def reap(s: ClientSession) -> object:
    return _run(s, s.space.engine.coordinator.reap())


def workers(s: ClientSession) -> object:
    return list(_run(s, s.space.engine.coordinator.workers()))


def acquire(s: ClientSession, name: str, holder: str, ttl: float) -> object:
    _key(s, Right.WRITE, name)
    if not 0 < len(holder) <= MAX_KEY:
        raise ConfigError(f"a holder's name has 1 to {MAX_KEY} characters, not {len(holder):,}")
    check_seconds("ttl", ttl, MAX_LEASE)
    return _run(s, s.space.engine.coordinator.acquire(name, holder, ttl))


def resign(s: ClientSession, name: str, holder: str) -> object:
    _key(s, Right.WRITE, name)
    return _run(s, s.space.engine.coordinator.resign(name, holder))


def get(s: ClientSession, key: str) -> object:
    _key(s, Right.READ, key)
    return _run(s, s.space.engine.coordinator.get(key))


def put(s: ClientSession, key: str, value: bytes | None, if_version: int | None) -> object:
    _key(s, Right.WRITE, key, adds=value is not None)
    if value is not None and len(value) > MAX_VALUE:
        raise ConfigError(f"a value of {len(value):,} bytes; at most {MAX_VALUE:,} are kept")
    return _run(s, s.space.engine.coordinator.put(key, value, if_version))


def _key(s: ClientSession, right: Right, key: str, *, adds: bool = False) -> None:
    if not 0 < len(key) <= MAX_KEY:
        raise ConfigError(f"a name has 1 to {MAX_KEY} characters, not {len(key):,}")
    s.rights.state(right, key, adds=adds)


# Looking into queues.


def declare(s: ClientSession, queues: Sequence[Queue], namespace: str) -> object:
    """Each client declares its queues when it opens. One that is there, and stays as it is, needs no right to configure
    of who may use it."""
    changed = [queue for queue in queues if not _stays(s, queue, namespace)]
    for queue in changed:
        s.rights.need(Right.CONFIGURE, "queue", queue.name)
    return _run(s, s.space.engine.inspect.declare(changed, namespace))


def _stays(s: ClientSession, queue: Queue, namespace: str) -> bool:
    """Asked only for a user who may see the queue: whether it is there is not told to others."""
    used = s.rights.may(Right.WRITE, queue.name) or s.rights.may(Right.READ, queue.name)
    kept = Queue(queue.name, queue.max_length, queue.max_bytes, queue.overflow)  # its other fields are the app's
    return used and s.space.declared(namespace, queue.name) == kept


def queues(s: ClientSession, namespace: str | None) -> object:
    found = _run(s, s.space.queues(namespace))
    if s.identity.monitors:
        return list(found)
    rights = (Right.READ, Right.WRITE, Right.CONFIGURE)
    return [info for info in found if any(s.rights.may(right, info.name) for right in rights)]


def peek(s: ClientSession, queue: str, limit: int, namespace: str) -> object:
    s.rights.need(Right.READ, "queue", queue)
    return list(_run(s, s.space.engine.inspect.peek(queue, _limit(limit), namespace)))


async def purge(s: ClientSession, queue: str, namespace: str) -> object:
    s.rights.need(Right.READ, "queue", queue)
    total = 0
    while gone := s.space.engine.inspect.purge_some(queue, namespace):
        total += gone
        await asyncio.sleep(0)
    return total


def pause(s: ClientSession, queue: str, namespace: str) -> object:
    check_name("queue", queue)  # it is made if it is not there
    s.rights.need(Right.CONFIGURE, "queue", queue)
    return _run(s, s.space.engine.inspect.pause(queue, namespace))


def resume(s: ClientSession, queue: str, namespace: str) -> object:
    s.rights.need(Right.CONFIGURE, "queue", queue)
    return _run(s, s.space.engine.inspect.resume(queue, namespace))


def dead_letters(s: ClientSession, queue: str | None, limit: int, namespace: str) -> object:
    if queue is not None:
        s.rights.need(Right.READ, "queue", queue)
    found = _run(s, s.space.engine.inspect.dead_letters(queue, _limit(limit), namespace))
    return [letter for letter in found if s.rights.may(Right.READ, letter.queue)]


def retry_dead(s: ClientSession, ids: Sequence[str]) -> object:
    return _run(s, s.space.engine.inspect.retry_dead(_dead(s, ids, Right.WRITE)))


def drop_dead(s: ClientSession, ids: Sequence[str]) -> object:
    return _run(s, s.space.engine.inspect.drop_dead(_dead(s, ids, Right.READ)))


def _dead(s: ClientSession, ids: Sequence[str], right: Right) -> list[str]:
    """Those of the dead letters that there are; the right on the queue of each is needed."""
    found = []
    for one in ids:
        row = s.space.store.row_of(one)
        place = None if row is None else s.space.store.place(row)
        if place is not None:
            s.rights.need(Right.READ, "queue", place[1])
            s.rights.need(right, "queue", place[1])
            found.append(one)
    return found


def members(s: ClientSession) -> object:
    return []


def _limit(limit: int) -> int:
    if limit > MAX_LISTED:
        raise ConfigError(f"limit must be between 0 and {MAX_LISTED:,}, not {limit!r}")
    return limit


VERBS: Mapping[str, Callable[[Call], None]] = MappingProxyType(
    {
        act.__name__: verb(act)
        for act in (
            *(extend, depth, store, fetch, forget, note, append, parts),
            *(revoke, join, renew, leave, bury, reap, workers, acquire, resign, get, put),
            *(declare, queues, peek, purge, pause, resume, dead_letters, retry_dead, drop_dead, members),
        )
    }
)
