"""One subscription, as engines over the network hand it out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger("penstock.engine")


class Listener:
    """Implements `penstock.backend.Subscription`. Used on the loop's thread, but for `wait` and `close`."""

    def __init__(self, notify: Callable[..., None], leave: Callable[[], None]) -> None:
        """`notify` is told the news; `leave` is called once, by `close`, on any thread."""
        self._notify = notify
        self._leave = leave
        self.closed = False

    def tell(self, *news: Any) -> None:
        if self.closed:
            return
        try:
            self._notify(*news)
        except Exception:  # its loop was closed just now: the others still want to know
            log.debug("somebody who waited is gone", exc_info=True)

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._leave()
