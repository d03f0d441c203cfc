"""Where admission is tried: an app on the memory engine, with a clock in hand and no real pauses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock import (
    Penstock,
    Queue,
    apart,
)
from penstock.broker import Demand
from penstock.contrib.clock import TravelClock
from penstock.delivery import ACK, Settlement

NOW = 1_700_000_000.0
BUDGET = 10
"""Retries that a process may have at once that publishes little."""


class Stage:
    """An app whose queue holds four tasks. Its pauses are `between`: no time passes but by the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.clock = TravelClock(NOW)
        queues = [Queue("default", 4), Queue("long", 10_000)]
        self.app = Penstock("p", broker="memory://", clock=self.clock, task_queues=queues, **settings)
        self.calls: list[int] = []
        self.pauses: list[float] = []
        self.pace = 1.0
        self.between: Callable[[], None] = lambda: None
        monkeypatch.setattr(apart.time, "sleep", self._pause)

    def task(self, **options: Any) -> Any:
        def count(number: int) -> int:
            self.calls.append(number)
            return 2 * number

        return self.app.task(name=f"t{len(self.app.tasks)}", **options)(count)

    def fill(self, task: Any, count: int = 4) -> None:
        for number in range(count):
            task.apply_async((number,), on_full="raise")

    def drain(self, count: int = 1, queue: str = "default") -> None:
        run, broker = self.app.engine.run, self.app.engine.broker
        found = run(broker.step([], Demand((queue,), count, "worker"))).deliveries
        run(broker.step([Settlement(one.receipt, ACK) for one in found], None))

    def depth(self, queue: str = "default") -> int | None:
        return self.app.engine.run(self.app.broker.depth(queue, ""))

    def pass_seconds(self, seconds: int, per_second: int, task: Any) -> None:
        """So many tasks leave the long queue each second, and a call looks at it."""
        for _ in range(2 * seconds):
            self.clock.advance(0.5)
            self.drain(per_second // 2, "long")
            task.apply_async((0,), deadline=1_000)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds * self.pace)
        self.between()
