"""What somebody must do for living workers about every second: renew their leases, take back those of the dead."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from penstock.engine import Engine
from penstock.errors import BrokerError

REAP_INTERVAL = 1.0

log = logging.getLogger("penstock.worker")


class Upkeep:
    def __init__(self, engine: Engine, lease: float, alive: Callable[[], Sequence[str]]) -> None:
        """`alive` tells the ids of the workers whose leases are to be kept."""
        self._engine = engine
        self._lease = lease
        self._alive = alive
        self._renewed = self._reaped = float("-inf")

    def tick(self, now: float) -> None:
        """`now` is monotonic. Errors of the engine are logged; the next tick tries again."""
        coordinator = self._engine.coordinator
        try:
            if now - self._renewed >= self._lease / 3:
                self._renewed = now
                alive = self._alive()
                if alive:
                    self._engine.run(coordinator.renew(alive, self._lease))
            if now - self._reaped >= REAP_INTERVAL:
                self._reaped = now
                taken = self._engine.run(coordinator.reap())
                if taken:
                    log.info("%d tasks of dead or silent workers were taken back", taken)
        except BrokerError as error:
            log.warning("upkeep failed, again in a second: %s", error)
        except Exception:  # whatever it is, the children must not lose their supervisor over it
            log.exception("upkeep failed, again in a second")
