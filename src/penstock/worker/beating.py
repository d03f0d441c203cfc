"""The beat inside a worker (`-B`): a child process of the supervisor; or a thread, where there is no supervisor."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock.worker.child import own_signals
from penstock.worker.log import name_log
from penstock.worker.marks import Mark
from penstock.worker.tally import Tally

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.beat.beat import Beat

AGAIN = 5.0
"""Seconds after which a beat that failed in its thread is started again."""

log = logging.getLogger("penstock.beat")


def check_beat(app: Penstock) -> None:
    """Raise what would keep a beat of this app from starting: `Unsupported`, `ConfigError`."""
    _new_beat(app)


def run_beat(app: Penstock, _worker: str, _mark: Mark, _tally: Tally, commands: int) -> int:
    """What a child does that is a beat. Whatever the supervisor says, or its death, ends it; if it was to be replaced,
    it is."""
    stopping = own_signals()
    name_log("beat")
    beat = _new_beat(app)
    for caught in (signal.SIGTERM, signal.SIGQUIT):
        signal.signal(caught, lambda *_: beat.stop())
    if stopping:
        beat.stop()
    return beat.run(commands)


@contextmanager
def beating(app: Penstock) -> Iterator[None]:
    """A beat in a thread of its own, which ends with the context."""
    ended = threading.Event()
    current: list[Beat] = []

    def main() -> None:
        while not ended.is_set():
            try:
                beat = _new_beat(app)
                current[:] = [beat]
                if not ended.is_set():
                    beat.run()
                return
            except Exception:
                log.exception("the beat failed, and is started again in %g s", AGAIN)
                ended.wait(AGAIN)

    thread = threading.Thread(target=main, name="penstock-beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        for beat in list(current):
            beat.stop()
        thread.join()


def _new_beat(app: Penstock) -> Beat:
    from penstock.beat.beat import Beat  # few workers have one

    return Beat(app)
