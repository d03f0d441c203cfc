"""Raising inside a running function, from another thread."""

from __future__ import annotations

import threading
import time

import pytest

from penstock.delivery import Delivery
from penstock.errors import SoftTimeLimitExceeded
from penstock.worker.limits import Armed

RUN, OTHER = Delivery((1,), 1, None), Delivery((2,), 2, None)


def spin(until: threading.Event, seconds: float = 10.0) -> None:
    """Bytecodes, so that an error can be raised between them."""
    end = time.monotonic() + seconds
    until.set()
    while time.monotonic() < end:
        pass


def fire_when(started: threading.Event, armed: Armed, run: Delivery, ended: threading.Event) -> threading.Thread:
    """As the watchdog does: again and again, until the run has ended."""

    def fire() -> None:
        started.wait()
        while not ended.wait(0.01):
            armed.fire(run)

    thread = threading.Thread(target=fire)
    thread.start()
    return thread


def test_the_main_thread_is_interrupted_even_in_a_blocking_call() -> None:
    armed, started, ended = Armed(), threading.Event(), threading.Event()
    armed.bind()
    armed.arm(RUN)
    thread = fire_when(started, armed, RUN, ended)
    began = time.monotonic()
    with pytest.raises(SoftTimeLimitExceeded):
        started.set()
        time.sleep(10)
    # Raised once: what cleans up after it is left alone.
    time.sleep(0.1)
    armed.disarm()
    ended.set()
    thread.join()
    assert time.monotonic() - began < 5


def test_a_thread_is_interrupted_at_a_bytecode() -> None:
    seen: list[BaseException] = []

    def slot() -> None:
        armed, started, ended = Armed(), threading.Event(), threading.Event()
        armed.bind()
        armed.arm(RUN)
        thread = fire_when(started, armed, RUN, ended)
        try:
            spin(started)
        except SoftTimeLimitExceeded as error:
            seen.append(error)
        armed.disarm()
        ended.set()
        thread.join()

    thread = threading.Thread(target=slot)
    thread.start()
    thread.join()
    assert len(seen) == 1


def test_only_the_run_that_is_meant_is_interrupted() -> None:
    armed = Armed()
    armed.bind()
    armed.fire(RUN)
    armed.arm(OTHER)
    armed.fire(RUN)
    armed.disarm()
    armed.fire(OTHER)
    time.sleep(0)  # a pending signal would be handled here


def inside_engine(module: str, body: str) -> dict[str, object]:
    """The names of a module that is called so, to be run as if it were part of an engine."""
    names: dict[str, object] = {"__name__": module, "time": time}
    exec(body, names)
    return names


BUSY = """
def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    done.append(1)
"""


@pytest.mark.parametrize("main", [True, False])
@pytest.mark.parametrize(("module", "finished"), [("penstock.engines.other.store", True), ("somebody.elses", False)])
def test_a_limit_waits_until_the_function_has_left_the_engine(main: bool, module: str, finished: bool) -> None:
    done: list[int] = []
    names = inside_engine(module, BUSY)
    names["done"] = done
    seen: list[BaseException] = []

    def slot() -> None:
        armed, started, ended = Armed(), threading.Event(), threading.Event()
        armed.bind()
        armed.arm(RUN)
        thread = fire_when(started, armed, RUN, ended)
        try:
            started.set()
            names["busy"](0.3)  # type: ignore[operator]  # defined above
            spin(started)
        except SoftTimeLimitExceeded as error:
            seen.append(error)
        armed.disarm()
        ended.set()
        thread.join()

    if main:
        slot()
    else:
        thread = threading.Thread(target=slot)
        thread.start()
        thread.join()
    assert len(seen) == 1
    assert bool(done) == finished
