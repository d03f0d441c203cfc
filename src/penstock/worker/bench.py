"""What the slots of one worker process share: the way to the engine, the stop, and the reasons to end."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from penstock.broker import Demand
from penstock.clock import Clock
from penstock.commit import Committer
from penstock.delivery import RELEASE, Delivery, Settlement
from penstock.engine import Engine
from penstock.worker.graphs import Graphs
from penstock.worker.settings import Settled
from penstock.worker.settle import Settler
from penstock.worker.slot import Batch, Slot
from penstock.worker.tally import Tally

IDLE_WAIT = 1.0
"""Seconds that a step waits for work; it is cut short by new work and by `stop`."""
BURST_WAIT = 0.1
"""Seconds that an empty queue is given in a burst, so that what is just becoming ready is still run."""
MEMORY_INTERVAL = 0.1


class Bench:
    """One per process. `warm` ends the loops after what they run now."""

    def __init__(
        self,
        engine: Engine,
        committer: Committer,
        settings: Settled,
        worker: str,
        batches: Sequence[Batch],
        slots: Sequence[Slot],
        clock: Clock,
        graphs: Graphs,
        tally: Tally,
    ) -> None:
        self.engine = engine
        self._tally = tally
        self._graphs = graphs
        self.settler = Settler(engine, committer, lambda: self.warm)
        self.worker = worker
        self.lease = settings.lease
        self.batches = batches
        self.slots = slots
        self.warm = False
        self.recycle = False
        """It ends in order to be replaced: it has run enough tasks, or grown too large."""
        self.burst = settings.burst
        self.idle_wait = BURST_WAIT if settings.burst else IDLE_WAIT
        self._settings = settings
        self._monotonic = clock.monotonic
        self._done = self._turn = 0
        self._looked = 0.0
        self._record_start = engine.broker.record_start
        self.asleep = False
        """The watchdog sleeps until `wake`."""
        self.stirred = False
        """Something has run since the watchdog's last look."""
        self._bell = os.pipe()
        os.set_blocking(self._bell[1], False)
        # Reentrant: a signal handler may ring while this very thread does.
        self._ringing = threading.RLock()
        self._closed = False

    def pull(self, settled: list[Settlement], limit: int, wait: float) -> Sequence[Delivery]:
        """Commit `settled` and reserve up to `limit` deliveries, waiting up to `wait` seconds for the first."""
        settings = self._settings
        if settings.max_tasks_per_child is not None:
            limit = min(limit, max(1, settings.max_tasks_per_child - self._done))
        if not limit:
            return self.settler.step(settled, None)
        want = Demand(
            self._next_queues(), limit, self.worker, lease=settings.lease, wait=wait, namespace=settings.namespace
        )
        deliveries = self.settler.step(settled, want)
        refused = self._graphs.attach(deliveries) if deliveries else ()
        if not refused:
            return deliveries
        self.settler.step([Settlement(one.receipt, RELEASE) for one in refused], None)
        given_back = {one.receipt for one in refused}
        return [one for one in deliveries if one.receipt not in given_back]

    def _next_queues(self) -> tuple[str, ...]:
        queues = self._settings.queues
        if len(queues) == 1 or not self._settings.in_turn:
            return queues
        self._turn = (self._turn + 1) % len(queues)
        return queues[self._turn :] + queues[: self._turn]

    def finish(self, batch: Batch) -> None:
        """Settle what has ended, and hand back what has not started."""
        settled = batch.take() + batch.hand_back()
        if settled:
            self.settler.step(settled, None)

    def rest(self, number: int) -> None:
        """Slot `number` runs nothing now."""
        self._record_start(number, None)

    def ran(self, count: int) -> None:
        """Between two batches: has this process run enough?"""
        self._done += count
        options = self._settings
        if options.max_tasks_per_child is not None and self._done >= options.max_tasks_per_child:
            self.recycle = True
            self.stop()
        if options.max_memory_per_child is not None:
            now = self._monotonic()
            if now - self._looked >= MEMORY_INTERVAL:
                self._looked = now
                if memory() > options.max_memory_per_child:
                    self.recycle = True
                    self.stop()

    def stop(self) -> None:
        """Warm stop. Safe in a signal handler and from any thread."""
        self.warm = True
        self.engine.broker.interrupt()
        self.wake()

    def watch(self) -> None:
        """Something starts to run: the watchdog must not sleep."""
        self.stirred = True
        if self.asleep:
            self.wake()

    def wake(self) -> None:
        """Wake the watchdog. After `close` it does nothing: the number of our pipe may be somebody else's by then."""
        self.asleep = False
        # Said here, since what starts to run now may keep the watchdog from saying anything.
        self._tally.wakes(self._monotonic())
        with self._ringing:
            if self._closed:
                return
            try:
                os.write(self._bell[1], b"x")
            except BlockingIOError:
                return  # it is full of rings that are not heard yet

    @property
    def bell(self) -> int:
        return self._bell[0]

    def close(self) -> None:
        with self._ringing:
            self._closed = True
            os.close(self._bell[0])
            os.close(self._bell[1])


def memory() -> int:
    """Resident memory of this process in KiB: now where there is /proc, else the largest that it ever was."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest // 1024 if sys.platform == "darwin" else largest
    return pages * resource.getpagesize() // 1024
