"""Where alarms go: the log at once; hooks and the webhook by a thread of its own, so that nothing waits for them."""

from __future__ import annotations

import logging
import queue as queues
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.pressure.alarms import PressureEvent

if TYPE_CHECKING:
    from penstock.pressure.webhook import Webhook

PressureHook = Callable[[PressureEvent], object]

MOST = 256
"""Events that wait to be told; the next are only logged."""
PATIENCE = 2.0
"""Seconds that the end of the process waits for those that are left."""

log = logging.getLogger("penstock.worker")


class Teller:
    def __init__(self, hooks: Sequence[PressureHook], webhook: str | None, app: str) -> None:
        """`hooks` are looked at with each event; `webhook` is a URL."""
        self._hooks = hooks
        self._webhook = _webhook(webhook, app) if webhook is not None else None
        self._waiting: queues.Queue[PressureEvent | None] = queues.Queue(MOST)
        self._thread: threading.Thread | None = None

    def tell(self, event: PressureEvent) -> None:
        """Never blocks, never raises."""
        log.log(logging.WARNING if event.state == "raised" else logging.INFO, "%s", event.text)
        if not self._hooks and self._webhook is None:
            return
        try:
            self._waiting.put_nowait(event)
        except queues.Full:
            log.warning("hooks of alarms do not keep up: one is not told of %s %s", event.kind, event.state)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="penstock-alarms", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait a little for what is left."""
        thread, self._thread = self._thread, None
        if thread is not None and not self._waiting.full():
            self._waiting.put(None)
            thread.join(PATIENCE)

    def _main(self) -> None:
        while (event := self._waiting.get()) is not None:
            for hook in self._hooks:
                try:
                    hook(event)
                except BaseException:  # `SystemExit`, too: what a hook does is its own
                    log.exception("a hook of alarms failed: %r", hook)
            if self._webhook is not None:
                self._webhook.post(event)


def _webhook(url: str, app: str) -> Webhook:
    from penstock.pressure.webhook import Webhook  # few have one, and it needs HTTP and TLS

    return Webhook(url, app)
