"""At most once: tasks with `acks_late=False`, whose start is on record before it happens, so that there is no second.

Where the broker keeps shared state, a note there says that the task was started. It is made by whoever comes first, and
is gone with the settlement that ends the run. The lease is kept all the while, as of any other task: so the task is
known while it runs, and when its worker dies it comes back, its note is found, and it ends as lost. Elsewhere the task
is acknowledged instead: see `penstock.worker.acknowledged`.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from penstock.broker import Cancelled, Lease, Lost
from penstock.clock import Clock
from penstock.commit import Committer
from penstock.delivery import RELEASE, Delivery, Receipt, Settlement
from penstock.effects import Put
from penstock.errors import BrokerError, PenstockError, WorkerLost
from penstock.message import start_key
from penstock.worker.acknowledged import Acknowledged
from penstock.worker.outage import Outage
from penstock.worker.slot import Slot

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.engine import Engine
    from penstock.worker.run import Runner

OUTAGE = 1.0
"""Seconds: what a note takes at most counts as time of its task, as back pressure must know it. What takes longer is an
outage, and no time of the task's."""

T = TypeVar("T")
log = logging.getLogger("penstock.worker")


class Early(Protocol):
    def claim(self, slot: Slot, delivery: Delivery) -> bool:
        """Put the start of `delivery` on record. `False`: it is not ours to run (any more); what there is to settle
        waits in the slot's batch."""
        ...

    def conclude(self, slot: Slot, settlement: Settlement) -> None:
        """The run that was claimed has ended so."""
        ...


def noteless(settlement: Settlement, task_id: str) -> Settlement:
    """The end of a run, and of the note of its start."""
    settlement.effects = (*settlement.effects, Put(start_key(task_id), None))
    return settlement


def early_of(
    app: Penstock, committer: Committer, runner: Runner, worker: str, lease: float, giving_up: Callable[[], bool]
) -> Early:
    """As the broker of the app has it. For the rest see `Noted`."""
    if app.engine.broker.features.notes_starts:
        return Noted(app.engine, runner, app.clock, worker, lease, giving_up)
    return Acknowledged(app.engine, app.results if app.keeps_results else None, committer)


class Noted:
    """Implements `Early`. Thread-safe."""

    def __init__(
        self, engine: Engine, runner: Runner, clock: Clock, worker: str, lease: float, giving_up: Callable[[], bool]
    ) -> None:
        """`lease` in seconds. `giving_up` ends the tries against an engine that cannot be reached."""
        self._run = engine.run
        self._broker = engine.broker
        self._coordinator = engine.coordinator
        self._runner = runner
        self._monotonic = clock.monotonic
        self._worker = worker
        self._lease = lease
        self._giving_up = giving_up
        self._pause = threading.Event()
        self._outage = Outage("noting starts")

    def claim(self, slot: Slot, delivery: Delivery) -> bool:
        try:
            unfit = self._claim(slot, delivery)
        except BrokerError as error:
            log.warning("task %s[%s] is not started: %s", slot.plan.name, slot.request.id, error)
            unfit = Settlement(delivery.receipt, RELEASE)
        except PenstockError as error:  # trying again would not help
            log.error("the start of task %s[%s] cannot be noted: %s", slot.plan.name, slot.request.id, error)
            unfit = self._runner.give_up(slot, delivery, error, self._monotonic())
        if unfit is not None:
            slot.batch.finished.append(unfit)
        return unfit is None

    def _claim(self, slot: Slot, delivery: Delivery) -> Settlement | None:
        """`None`: it may start; else its end."""
        name, task_id = slot.plan.name, slot.request.id
        before, slot.started = slot.started, math.inf  # no time limit runs out while it waits for the engine
        try:
            lease = self._begin(start_key(task_id), delivery.receipt)
        finally:
            now = self._monotonic()
            slot.started = before if now - before < OUTAGE else now
        if lease is None:
            error = WorkerLost("its worker died, or lost it, while it ran; with acks_late=False it is not run again")
            log.error("task %s[%s]: %s", name, task_id, error)
            return self._runner.give_up(slot, delivery, error, now)
        if isinstance(lease, Lost):
            log.warning("task %s[%s] is not started: it was lost before", name, task_id)
            return Settlement(delivery.receipt, RELEASE)
        if isinstance(lease, Cancelled):
            return self._runner.revoke(slot, delivery, now)
        return None

    def _begin(self, key: str, receipt: Receipt) -> Lease | None:
        """Note the start. The lease as it was after that; `None`: somebody else's start is noted."""
        mine = f"{self._worker} {receipt!r}".encode()
        if not self._until_known(lambda: self._note(key, mine)):
            return None
        # Who had lost it before the note was there may have missed a run by somebody else, with its note.
        [lease] = self._until_known(lambda: self._run(self._broker.extend([receipt], self._lease)))
        if isinstance(lease, Lost):
            self._until_known(lambda: self._erase(key, mine))
        return lease

    def _note(self, key: str, mine: bytes) -> bool:
        """Whether the note that is there now is ours: the first one stays."""
        if self._run(self._coordinator.put(key, mine, 0)) is not None:
            return True
        # It may be ours, from a try that was not answered.
        found = self._run(self._coordinator.get(key))
        return found is not None and found[0] == mine

    def _erase(self, key: str, mine: bytes) -> None:
        found = self._run(self._coordinator.get(key))
        if found is not None and found[0] == mine:
            self._run(self._coordinator.put(key, None, found[1]))

    def _until_known(self, ask: Callable[[], T]) -> T:
        """What the engine answers. A start that may be noted, and is not known to be, must not be left behind: to
        others it would be a run."""
        while True:
            try:
                answer = ask()
            except BrokerError as error:
                pause = self._outage.go_on(error)
                if self._giving_up():
                    raise
                self._pause.wait(pause)
            else:
                self._outage.over()
                return answer

    def conclude(self, slot: Slot, settlement: Settlement) -> None:
        slot.batch.finished.append(noteless(settlement, slot.request.id))
