"""Where one task runs at a time, and the batch that waits for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.delivery import RELEASE, Delivery, Settlement
from penstock.partials import Sink
from penstock.request import Request

if TYPE_CHECKING:
    from penstock.worker.plan import Plan


class Batch:
    """Deliveries that wait, and settlements that wait to be committed.

    The loop takes from the left of `waiting` and appends to `finished` without a lock (each is one atomic operation of
    the interpreter); the watchdog takes from the right. So every delivery is handed to exactly one of them.
    """

    __slots__ = ("_lock", "finished", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Delivery] = deque()
        self.finished: list[Settlement] = []
        self._lock = threading.Lock()

    def take(self) -> list[Settlement]:
        """What is finished, for exactly one caller."""
        with self._lock:
            finished = self.finished
            taken = finished[:]
            # The loop may append in between: only what was taken goes.
            del finished[: len(taken)]
            return taken

    def hand_back(self) -> list[Settlement]:
        """Give up what has not started."""
        released = []
        while True:
            try:
                released.append(Settlement(self.waiting.pop().receipt, RELEASE))
            except IndexError:
                return released


class Slot:
    """What runs here now. Filled by `Runner.prepare`, read by whoever calls the function and by the watchdog."""

    __slots__ = (
        "args",
        "batch",
        "cancelled",
        "delivery",
        "interrupt",
        "kwargs",
        "number",
        "overdue",
        "plan",
        "request",
        "started",
        "succeeded",
        "task",
    )

    def __init__(self, number: int, batch: Batch) -> None:
        self.number = number
        self.batch = batch
        self.delivery: Delivery | None = None
        """What runs now; the watchdog compares it by identity."""
        self.cancelled: Delivery | None = None
        """The delivery that was revoked while it ran."""
        self.interrupt: Callable[[Delivery], object] | None = None
        """Cancels the coroutine that runs here for that delivery; may be called from any thread."""
        self.overdue: tuple[Delivery, BaseException] | None = None
        """Which run was cancelled for its time limit, and the error that says so."""
        self.task: Plan | None = None
        """That of the plan, but for what a message changes: what is counted here."""
        self.plan: Plan
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.request: Request
        self.started = 0.0
        self.succeeded = 0
        """Runs of `task` in a row that have."""

    @property
    def is_coroutine(self) -> bool:
        return self.plan.is_coroutine

    @property
    def sink(self) -> Sink | None:
        """Where the parts of this run go, if it has published any."""
        sink: Sink | None = self.request.sink
        return sink

    @property
    def early(self) -> bool:
        return self.plan.early

    @property
    def limits(self) -> tuple[float | None, float | None]:
        return self.plan.soft, self.plan.hard
