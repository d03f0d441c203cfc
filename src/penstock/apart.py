"""What the runtime does because tasks and results may be on two servers. Where both are one, all of it is a plain call.

These coroutines are run by the engine that holds the tasks, as if they were its own.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from penstock.blocking import refuse_in_loop, running_loop
from penstock.broker import Key
from penstock.codec import failure
from penstock.coordinator import Revoked, Shared
from penstock.engine import Engine
from penstock.errors import TaskRevoked, Unsupported
from penstock.message import beginning_id, graph_key, graph_of
from penstock.outcome import Outcome, Progress, Report, State

if TYPE_CHECKING:
    from penstock.app import Penstock

MARK = "penstock.revoked"
"""Key of the small shared state beside the results. Its value is a Unix time: until then, workers of a broker that
remembers no revocations ask what has ended before they start a task."""
MARKED = 86_400
"""Seconds for which a revocation is looked for: as long as results are kept by default."""

T = TypeVar("T")


class Pause(Struct, frozen=True):
    """Nothing is to be done for so many seconds."""

    seconds: float


Plan = Generator[tuple[Engine, Coroutine[Any, Any, Any]] | Pause, Any, T]
"""Calls of several engines, one after the other; each is answered with what it returned, or raises what it raised."""


def revoked(now: float) -> Outcome:
    """How a task ended that was revoked before it ran."""
    return Outcome(State.REVOKED, failure(TaskRevoked("revoked before it ran")), now)


def drive(plan: Plan[T]) -> T:
    """What `plan` returns; blocks this thread."""
    try:
        step = next(plan)
        while True:
            try:
                answer = _blocking(step)
            except Exception as error:
                step = plan.throw(error)
            else:
                step = plan.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


def _blocking(step: tuple[Engine, Coroutine[Any, Any, Any]] | Pause) -> Any:
    if not isinstance(step, Pause):
        engine, call = step
        return engine.run(call)
    refuse_in_loop("a call that waits for room in a queue", "await with its a-variant, such as adelay()")
    return time.sleep(step.seconds)


async def adrive(plan: Plan[T]) -> T:
    """`drive` without blocking the running loop."""
    try:
        step = next(plan)
        while True:
            try:
                answer = await _awaited(step)
            except Exception as error:
                step = plan.throw(error)
            else:
                step = plan.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


async def _awaited(step: tuple[Engine, Coroutine[Any, Any, Any]] | Pause) -> Any:
    if not isinstance(step, Pause):
        engine, call = step
        return await engine.arun(call)
    import asyncio  # who awaits has loaded it

    return await asyncio.sleep(step.seconds)


def coordinating(engine: Engine, results: Engine) -> Engine | None:
    """The engine that keeps the small shared state; `None`: neither does."""
    return next((one for one in (engine, results) if one.broker.features.coordination), None)


def knows_waiting(engine: Engine, results: Engine) -> bool:
    """Whether somebody can tell a task that waits from one that was never seen."""
    features = engine.broker.features
    return features.knows_ids and (features.results or results is not engine)


def stored_keys(engine: Engine, results: Engine, keys: Sequence[Key]) -> Sequence[Key]:
    """The keys as the engine that keeps results has them: another server knows public ids only."""
    return keys if results is engine else [engine.broker.public_id(key) for key in keys]


def reports(engine: Engine, results: Engine, keys: Sequence[Key]) -> Plan[Sequence[Report]]:
    """`Backend.fetch`: how tasks ended, from where that is kept, and where the others are, from the broker if it
    knows. What a stored graph is still to publish is PENDING."""
    found = yield from seen(engine, results, keys)
    unseen = {
        place: node[0]
        for place, (key, report) in enumerate(zip(keys, found, strict=True))
        if report.state is State.UNKNOWN and isinstance(key, str) and (node := graph_of(key)) is not None
    }
    holder = coordinating(engine, results) if unseen else None
    if holder is None:
        return found
    found, stored, gone = list(found), dict[str, bool](), []
    for place, graph in unseen.items():
        if graph not in stored:
            stored[graph] = yield from _is_going(engine, results, holder, graph)
        if stored[graph]:
            found[place] = Report(found[place].id, State.PENDING)
        else:
            gone.append(place)
    # It may have been published, and have ended with its graph, between the two looks.
    again = (yield from seen(engine, results, [keys[place] for place in gone])) if gone else []
    for place, report in zip(gone, again, strict=True):
        found[place] = report
    return found


def _is_going(engine: Engine, results: Engine, holder: Engine, graph: str) -> Plan[bool]:
    """Whether there is a graph, or the message that will begin it."""
    if (yield holder, holder.coordinator.get(graph_key(graph))) is not None:
        return True
    [begin] = yield from seen(engine, results, [beginning_id(graph)])
    if begin.state is not State.UNKNOWN:
        return not begin.state.terminal
    # It may have begun between the two looks.
    return (yield holder, holder.coordinator.get(graph_key(graph))) is not None


def seen(engine: Engine, results: Engine, keys: Sequence[Key]) -> Plan[Sequence[Report]]:
    """What is known of tasks that were published."""
    if results is engine:
        if not engine.broker.features.results:
            return [Report(engine.broker.public_id(key), State.UNKNOWN) for key in keys]
        fetched: Sequence[Report] = yield engine, engine.backend.fetch(keys)
        return fetched
    ids = stored_keys(engine, results, keys)
    found = list((yield results, results.backend.fetch(ids)))
    places = [place for place, report in enumerate(found) if not report.state.terminal]
    if not places or not engine.broker.features.knows_ids:
        return found
    there = yield engine, engine.backend.fetch([keys[place] for place in places])
    gone = []
    for place, report in zip(places, there, strict=True):
        found[place] = report
        if report.state is State.UNKNOWN or report.state.terminal:
            gone.append(place)
    if gone:
        # It may have ended between the two looks: what ended is stored before the broker lets it go.
        for place, report in zip(gone, (yield results, results.backend.fetch([ids[p] for p in gone])), strict=True):
            if report.state.terminal:
                found[place] = report
    return found


def note(engine: Engine, results: Engine, key: Key, progress: Progress) -> Plan[None]:
    """`Backend.note`, where those look who ask for a task that runs."""
    holder = engine if knows_waiting(engine, results) else results
    [stored] = stored_keys(engine, holder, [key])
    yield holder, holder.backend.note(stored, progress)


async def elsewhere(results: Engine, call: Coroutine[Any, Any, T]) -> T:
    """What `call` of another engine returns: each engine runs its own coroutines only."""
    if running_loop() is None:
        return results.run(call)  # an embedded engine drives us, on a thread that may block
    return await results.arun(call)


class Beside:
    """The shared state of the engine that keeps results, for coroutines that the engine of tasks runs."""

    def __init__(self, results: Engine) -> None:
        self._results = results
        self._there = results.coordinator

    async def acquire(self, name: str, holder: str, ttl: float) -> int | None:
        return await elsewhere(self._results, self._there.acquire(name, holder, ttl))

    async def resign(self, name: str, holder: str) -> None:
        await elsewhere(self._results, self._there.resign(name, holder))

    async def get(self, key: str) -> tuple[bytes, int] | None:
        return await elsewhere(self._results, self._there.get(key))

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int | None:
        return await elsewhere(self._results, self._there.put(key, value, if_version))


def beside(results: Engine) -> Shared | None:
    """`Beside`; `None`: no shared state is kept there."""
    return Beside(results) if results.broker.features.coordination else None


def shared(app: Penstock) -> Shared | None:
    """Leader leases and small shared state, for coroutines that `app.engine` runs: the broker's own, or where results
    are. `None`: nobody keeps any."""
    if app.engine.broker.features.coordination:
        return app.engine.coordinator
    return beside(app.results) if app.result_url is not None else None


def forget(engine: Engine, results: Engine, keys: Sequence[Key]) -> Plan[None]:
    """`Backend.forget`."""
    yield results, results.backend.forget(stored_keys(engine, results, keys))


async def revoke(
    engine: Engine, results: Engine, keys: Sequence[Key], now: float, terminate: bool = False
) -> Sequence[Revoked]:
    """`Coordinator.revoke`; who waits for what it removed is told REVOKED, wherever results are."""
    found = await engine.coordinator.revoke(keys, terminate)
    removed = [key for key, one in zip(keys, found, strict=True) if one is Revoked.REMOVED]
    if removed and results is not engine:
        outcomes = [(engine.broker.public_id(key), revoked(now)) for key in removed]
        await elsewhere(results, results.backend.store(outcomes))
    return found


def revocation(
    engine: Engine, results: Engine, keys: Sequence[Key], now: float, terminate: bool = False
) -> Plan[Sequence[Revoked]]:
    """`revoke`, also for a broker that remembers nothing. There a revocation is the result REVOKED, which nothing
    replaces, and a mark for the workers that there are such (see `MARK`)."""
    coordinator = results.coordinator
    if engine.broker.features.coordination or results is engine or not results.broker.features.coordination:
        found: Sequence[Revoked] = yield engine, revoke(engine, results, keys, now, terminate)
        return found
    if terminate:
        raise Unsupported(
            f"{engine.broker.features.engine} cannot end what runs: revoke without terminate, which keeps a task from "
            "starting"
        )
    outcomes = [(key, revoked(now)) for key in stored_keys(engine, results, keys)]
    yield results, coordinator.put(MARK, b"%d" % (now + MARKED))
    first = yield results, results.backend.store(outcomes)
    return [Revoked.REMEMBERED if one else Revoked.ENDED for one in first]


async def retry_dead(engine: Engine, results: Engine, ids: Sequence[str]) -> int:
    """`Inspectable.retry_dead`; how they ended is forgotten before they can end again, wherever results are."""
    if results is not engine:
        reports = await elsewhere(results, results.backend.fetch(ids))
        failed = [report.id for report in reports if report.state is State.FAILURE]  # strangers keep what they have
        await elsewhere(results, results.backend.forget(failed))
    return await engine.inspect.retry_dead(ids)
