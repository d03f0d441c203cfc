"""What the runtime does because tasks and results may be on two servers. Where both are one, all of it is a plain call.

These coroutines are run by the engine that holds the tasks, as if they were its own.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from penstock.blocking import running_loop
from penstock.broker import Key
from penstock.coordinator import Revoked
from penstock.engine import Engine
from penstock.outcome import Outcome, State

T = TypeVar("T")


async def elsewhere(results: Engine, call: Coroutine[Any, Any, T]) -> T:
    """What `call` of another engine returns: each engine runs its own coroutines only."""
    if running_loop() is None:
        return results.run(call)  # an embedded engine drives us, on a thread that may block
    return await results.arun(call)


async def revoke(
    engine: Engine, results: Engine, keys: Sequence[Key], now: float, terminate: bool = False
) -> Sequence[Revoked]:
    """`Coordinator.revoke`; who waits for what it removed is told REVOKED, wherever results are."""
    found = await engine.coordinator.revoke(keys, terminate)
    removed = [key for key, one in zip(keys, found, strict=True) if one is Revoked.REMOVED]
    if removed and results is not engine:
        outcomes = [(engine.broker.public_id(key), Outcome(State.REVOKED, b"", now)) for key in removed]
        await elsewhere(results, results.backend.store(outcomes))
    return found


async def retry_dead(engine: Engine, results: Engine, ids: Sequence[str]) -> int:
    """`Inspectable.retry_dead`; how they ended is forgotten before they can end again, wherever results are."""
    if results is not engine:
        reports = await elsewhere(results, results.backend.fetch(ids))
        failed = [report.id for report in reports if report.state is State.FAILURE]  # strangers keep what they have
        await elsewhere(results, results.backend.forget(failed))
    return await engine.inspect.retry_dead(ids)
