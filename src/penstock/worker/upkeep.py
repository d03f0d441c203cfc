"""What somebody must do for living workers about every second: renew their leases, take back those of the dead."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from penstock.blocking import bounded
from penstock.engine import Engine
from penstock.errors import PenstockError
from penstock.pressure.keeper import Keeper
from penstock.worker.outage import Outage

REAP_INTERVAL = 1.0
PATIENCE = 2.0
"""Seconds that one of its calls may take: who calls it has other duties, such as killing what is overdue."""

T = TypeVar("T")
log = logging.getLogger("penstock.worker")


class Upkeep:
    def __init__(
        self,
        engine: Engine,
        results: Engine | None,
        lease: float,
        alive: Callable[[], Sequence[str]],
        pressure: Keeper | None = None,
    ) -> None:
        """`alive` tells the ids of the workers whose leases are to be kept."""
        self._engine = engine
        self._results = results if results is not engine else None
        self._lease = lease
        self._alive = alive
        self._pressure = pressure
        self._renewed = self._reaped = float("-inf")
        self._outage, self._results_outage = Outage("upkeep"), Outage("upkeep of the results")
        self._pressure_outage = Outage("back pressure")

    def tick(self, now: float) -> None:
        """`now` is monotonic. Errors of the engine are logged; the next tick tries again."""
        try:
            if now - self._renewed >= self._lease / 3:
                alive = self._alive()
                if alive:
                    self._call(self._engine.coordinator.renew(alive, self._lease))
                self._renewed = now
            if now - self._reaped >= REAP_INTERVAL:
                self._reaped = now
                taken = self._call(self._engine.coordinator.reap())
                if taken:
                    log.info("%d tasks of dead or silent workers were taken back", taken)
                self._outage.over()  # only who has called can tell
                self._expire_results()
                self._press(now)
        except PenstockError as error:
            self._outage.go_on(error)
        except Exception:  # whatever it is, the children must not lose their supervisor over it
            log.exception("upkeep failed, again in a second")

    def close(self) -> None:
        if self._pressure is not None:
            self._pressure.close()

    def _call(self, call: Coroutine[Any, Any, T]) -> T:
        return self._engine.run(bounded(call, PATIENCE, self._engine.url))

    def _expire_results(self) -> None:
        """Where they are apart, nobody else asks that server to drop the old ones."""
        results = self._results
        if results is None:
            return
        try:
            results.run(bounded(results.coordinator.reap(), PATIENCE, results.url))
            self._results_outage.over()
        except PenstockError as error:
            self._results_outage.go_on(error)

    def _press(self, now: float) -> None:
        """Its troubles, such as rights that are missing, are its own."""
        if self._pressure is None:
            return
        try:
            self._call(self._pressure.tick(now))
            self._pressure_outage.over()
        except PenstockError as error:
            self._pressure_outage.go_on(error)
