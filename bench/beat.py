"""Beat: what 100,000 schedules cost, how late their ticks are, and how soon another leads when the leader is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from bench.idle import cpu_seconds
from bench.measure import Goal, Measure, Reading, Result, percentile
from bench.place import DURABILITY, URL, Place, environment, result_of, start_call
from penstock import Penstock, Queue, crontab, schedule
from penstock.beat.beat import Beat, catch_signals
from penstock.dispatch import Call
from penstock.message import Dedup, Message
from penstock.schedules import Schedule

T = TypeVar("T")
SETTLING = 8.0
"""Seconds after the timetable was read that do not count."""
HOUR = 3600
DAY = 86_400


def beat_app(count: int, kind: str, lease: float, **settings: Any) -> Penstock:
    """An app with `count` schedules: "resting" ones, none of which is due within half a day, or "hourly" ones, spread
    evenly over the hour."""
    app = Penstock(
        "bench",
        broker=os.environ[URL],
        durability=os.environ[DURABILITY],  # type: ignore[arg-type]  # from `environment`
        beat_lease=lease,
        task_queues=[Queue("default", max_length=1 << 40, max_bytes=1 << 50)],
        **settings,
    )
    task = app.task(name="noop", ignore_result=True)(_noop)
    now = int(time.time())
    for number in range(count):
        app.add_periodic_task(plan(kind, number, count, now), task.s(number), name=f"schedule {number}")
    return app


def plan(kind: str, number: int, count: int, now: int) -> Schedule:
    if kind == "hourly":
        return schedule(HOUR, anchor=HOUR * number / count)
    minutes = (now + DAY // 2 + number % (DAY // 4)) // 60
    return crontab(minutes % 60, minutes // 60 % 24, tz="UTC")


def _noop(number: int) -> None:
    """Never runs."""


class Lateness:
    """How many milliseconds after its moment each tick was in the broker, once the timetable is read."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self._from = float("inf")
        self._moments: list[float] = []

    def counts_from(self, moment: float) -> None:
        """Monotonic."""
        self._from = moment

    def publishing(self, messages: Sequence[Message]) -> Sequence[Message]:
        self._moments = [moment_of(message) for message in messages]
        return messages

    def observe(self, call: Call) -> None:
        now = time.time()
        if call.verb == "publish" and time.monotonic() > self._from:
            self.taken += [(now - moment) * 1000 for moment in self._moments]


def moment_of(message: Message) -> float:
    from datetime import UTC, datetime

    guard = next(guard for guard in message.guards if isinstance(guard, Dedup))
    text = guard.key.rpartition("@")[2]
    form = "%Y%m%dT%H%M%S.%fZ" if "." in text else "%Y%m%dT%H%M%SZ"
    return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()


def serve(count: int, kind: str, lease: float, ready: str) -> list[float]:
    """A beat, until it is told to stop; it makes the file `ready` when it leads. Returns how late its ticks were, in
    milliseconds."""
    late = Lateness()
    app = beat_app(count, kind, lease, publishing=[late.publishing], observers=[late.observe])
    beat = Beat(app)
    catch_signals(beat)
    # What came due while the timetable was read is late by as long as that takes; the take-overs below tell of it.
    while not beat.leads:
        time.sleep(beat.turn())
    late.counts_from(time.monotonic() + SETTLING)
    Path(ready).touch()
    beat.run()
    return late.taken


def _many(place: Place, kind: str, seconds: float) -> tuple[float, list[float]]:
    """The share of a core (%) that a beat takes while it leads, and how late its ticks were."""
    with place.private() as folder:
        env = environment(folder / "queue.db", "power")
        count = place.size(100_000, 2_000)
        ready = folder / "ready"
        with start_call("bench.beat", "serve", env, count=count, kind=kind, lease=10.0, ready=str(ready)) as process:
            _wait_until(ready.exists, [process], timeout=240)
            time.sleep(SETTLING)
            before, began = cpu_seconds([process.pid]), time.monotonic()
            time.sleep(seconds)
            share = (cpu_seconds([process.pid]) - before) / (time.monotonic() - began) * 100
            process.send_signal(signal.SIGTERM)
            return share, result_of(process)


def _take_over(place: Place, count: int, lease: float) -> float:
    """Seconds from the leader's SIGKILL until another leads."""
    with place.private() as folder, ExitStack() as stack:
        env = environment(folder / "queue.db", "power")
        beats = {
            number: stack.enter_context(
                start_call(
                    "bench.beat", "serve", env, count=count, kind="hourly", lease=lease, ready=str(folder / str(number))
                )
            )
            for number in range(2)
        }
        leading = _wait_until(lambda: _ready(folder, beats), list(beats.values()), timeout=240) - 1
        time.sleep(SETTLING if count > 1000 else 2)  # the other stands by
        leader = beats.pop(leading)
        leader.kill()
        killed = time.monotonic()
        _wait_until(lambda: _ready(folder, beats), list(beats.values()), timeout=240)
        return time.monotonic() - killed


def _ready(folder: Path, beats: Iterable[int]) -> int:
    """The number of the beat that leads, counted from 1; 0: none does."""
    return next((number + 1 for number in beats if (folder / str(number)).exists()), 0)


def _wait_until(told: Callable[[], T], beats: Sequence[subprocess.Popen[str]], timeout: float) -> T:
    """What is told, as soon as it is something."""
    deadline = time.monotonic() + timeout
    while not (found := told()):
        if any(beat.poll() is not None for beat in beats):
            raise RuntimeError("a beat ended by itself")
        if time.monotonic() > deadline:
            raise RuntimeError(f"no beat led within {timeout:g} s")
        time.sleep(0.005)
    return found


def _beat(place: Place) -> Iterator[Result]:
    resting = place.repeat(1, lambda: _many(place, "resting", place.size(30, 2)), extra=0)
    yield Result(
        "beat/idle/cpu",
        "100,000 schedules, none due: CPU",
        "% core",
        tuple(Reading(share, foreign) for (share, _), foreign in resting),
        Goal(2, 4, "less"),
        "power",
    )
    hourly = place.repeat(2, lambda: _many(place, "hourly", place.size(40, 5)), extra=0)
    yield Result(
        "beat/busy/cpu",
        "100,000 hourly schedules, 28 ticks/s: CPU",
        "% core",
        tuple(Reading(share, foreign) for (share, _), foreign in hourly),
        None,
        "power",
    )
    for share, goal in ((0.5, None), (0.99, Goal(50, 200, "less"))):
        readings = tuple(Reading(percentile(late, share), foreign) for (_, late), foreign in hourly)
        yield Result(
            f"beat/late/p{share * 100:.0f}", f"their lateness, p{share * 100:.0f}", "ms", readings, goal, "power"
        )
    for lease, target in ((1.5, 2.0), (10.0, 12.0)):
        taken = place.repeat(3, lambda lease=lease: _take_over(place, 10, lease), extra=0)  # type: ignore[misc]  # mypy: lambda default
        readings = tuple(Reading(seconds, foreign) for seconds, foreign in taken)
        yield Result(
            f"beat/take-over/{lease:g}",
            f"leader killed → another leads, beat_lease={lease:g}",
            "s",
            readings,
            Goal(target, target, "less"),
            "power",
        )
    many = place.repeat(1, lambda: _take_over(place, place.size(100_000, 2_000), 10.0), extra=0)
    yield Result(
        "beat/take-over/many",
        "the same with 100,000 schedules, beat_lease=10",
        "s",
        tuple(Reading(seconds, foreign) for seconds, foreign in many),
        None,
        "power",
    )


MEASURES = (Measure("beat", "periodic tasks: cost, lateness, take-over", _beat),)
