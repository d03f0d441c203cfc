"""One delivery at a time on the caller's own thread: no pool, no watchdog, and so no limits of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from penstock import request as requests
from penstock.clock import Clock
from penstock.delivery import Delivery, Settlement
from penstock.worker.run import Runner
from penstock.worker.slot import Batch, Slot

RAISED = (Exception, SystemExit)
"""What ends a run as its error. Anything else, a Ctrl-C or a failed test, is meant for the caller."""


class Alone:
    """Calls functions as a worker's slot does; `runner` decides what comes of them."""

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self.slot = Slot(0, Batch())
        self._runner = runner
        self._now = clock.monotonic

    def run(self, delivery: Delivery, allowed: Callable[[Slot, Delivery], bool]) -> Settlement | None:
        """The end of `delivery`; `None` when it is not `allowed`. A coroutine task gets a loop of its own, so that this
        is not for a thread whose loop runs."""
        with self._loaded(delivery) as settlement:
            if settlement is not None:
                return settlement
            if not allowed(self.slot, delivery):
                return None
            context = copy_context()
            try:
                value = context.run(self._call)
                if self.slot.is_coroutine:
                    import asyncio  # most tasks are plain functions

                    with asyncio.Runner() as runner:
                        value = runner.run(value, context=context)
                if self.slot.sink is not None:
                    self.slot.sink.finish()
            except RAISED as error:
                if self.slot.sink is not None:
                    self.slot.sink.abandon()
                return self._runner.fail(self.slot, error, self._now())
            return self._runner.succeed(self.slot, value, self._now())

    async def arun(self, delivery: Delivery, allowed: Callable[[Slot, Delivery], bool]) -> Settlement | None:
        """The same on the running loop. A plain function blocks it."""
        with self._loaded(delivery) as settlement:
            if settlement is not None:
                return settlement
            if not allowed(self.slot, delivery):
                return None
            try:
                value = self._call()
                if self.slot.is_coroutine:
                    value = await value
                if self.slot.sink is not None:
                    await self.slot.sink.afinish()
            except RAISED as error:
                if self.slot.sink is not None:
                    await self.slot.sink.aabandon()
                return self._runner.fail(self.slot, error, self._now())
            return self._runner.succeed(self.slot, value, self._now())

    @contextmanager
    def _loaded(self, delivery: Delivery) -> Iterator[Settlement | None]:
        """The slot with `delivery`, or the settlement that it ends by at once. The caller may be a task, too."""
        outer = requests.current.get()
        now = self._now()
        self._runner.tick(now)
        try:
            yield self._runner.prepare(self.slot, delivery, now)
        finally:
            self.slot.delivery = None
            requests.current.set(outer)

    def _call(self) -> Any:
        slot = self.slot
        assert slot.delivery is not None
        if "before_start" in slot.plan.hooks:
            self._runner.before_start(slot)
        return slot.plan.bound(slot.delivery, slot.args, slot.kwargs)()
