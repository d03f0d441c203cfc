"""Time limits of plain functions: an error raised inside the running function, from another thread.

On the main thread a signal interrupts even a blocking system call; its handler raises only if that same run is still
inside its function. Other threads get the error from the interpreter at their next bytecode: a blocking call is not
interrupted.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from penstock.delivery import Delivery
from penstock.errors import SoftTimeLimitExceeded

SIGNAL = signal.SIGXCPU
"""Means "CPU time limit exceeded", and next to no program has another use for it."""

ENGINES = "penstock.engines."


class Armed:
    """The limited run of one slot, between `arm` and `disarm` on the slot's thread. At most one error is raised per
    run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: Delivery | None = None
        self._fired = False
        self._thread = 0
        self._main = False

    def bind(self) -> None:
        """This thread is the slot's. Installs the signal handler if it is the main thread."""
        self._thread = threading.get_ident()
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            signal.signal(SIGNAL, self._on_signal)

    def arm(self, delivery: Delivery) -> None:
        self._fired = False
        self._inside = delivery

    def disarm(self) -> None:
        with self._lock:
            self._inside = None
            if self._fired and not self._main:
                _raise_in(self._thread, None)

    def fire(self, delivery: Delivery) -> None:
        """Raise inside the function that runs for `delivery`, if it still does. Called by the watchdog, until it ends:
        a signal that comes just before a blocking call begins does not interrupt that call, but the next one does."""
        with self._lock:
            if self._inside is not delivery:
                return
            if self._main:
                self._fired = True
                signal.pthread_kill(self._thread, SIGNAL)
            elif not self._fired and not _in_engine(sys._current_frames().get(self._thread)):
                self._fired = True
                _raise_in(self._thread, SoftTimeLimitExceeded)

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        # On the slot's own thread: nothing can come between the question and the answer.
        if self._inside is not None and self._fired and not _in_engine(frame):
            self._inside = None
            raise SoftTimeLimitExceeded("the soft time limit passed")


def _in_engine(frame: FrameType | None) -> bool:
    """The function is just now publishing, say. An error there could come between a lock and its release, or between a
    commit and its answer; the next call of `fire` finds it elsewhere."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(ENGINES):
            return True
        frame = frame.f_back
    return False


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have `error` raised in `thread`; `None` takes back one that was not yet raised."""
    import ctypes  # only when a limit passes

    target = ctypes.py_object(error) if error is not None else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), target)
