"""An engine and workers of our own, and loads on them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.broker.site import site as broker_site
from bench.engines.sites import SERVERS
from bench.idle import tree
from bench.place import URL, Place, call, result_of, start_call, workers
from bench.pressure.load import Load, read_calls
from bench.pressure.pressed import NOTE, PRESSED, Pressed
from bench.pressure.vigil import Vigil

ENGINES = ("sqlite", "penstock", "redis", "postgres", "rabbitmq")
OFFER = "bench.pressure.offer"
KEPT = 5.0
"""Seconds that results are kept, so that as many go as come; a broker keeps them as long as it is set to, a day."""
NUMBERS = 10_000_000
"""Of calls of one load."""
STUCK = 10.0
"""Seconds without any end after which no more are waited for."""


class Trial(Struct, frozen=True):
    """What is tried on an engine: a bound, and what its workers do. See `Pressed`."""

    engine: str
    slots: int
    seconds: float
    length: int
    latency: float | None = None
    cpu: bool = False

    @property
    def callers(self) -> int:
        """Threads. Over a network a call takes as long as the way there and back, and its threads share the way."""
        return 4 if self.engine == "sqlite" else 48

    @property
    def durability(self) -> str:
        """What an accepted task survives, as the engine is set up here."""
        return "process" if self.engine == "redis" else "power"


class Seen(Struct, frozen=True):
    """A load that was offered. `began` is the time of its start; `died` of the workers' processes are not there any
    more."""

    load: Load
    began: float
    vigil: Vigil
    died: int


class Site:
    def __init__(
        self, place: Place, notes: Path, env: dict[str, str], callers: int, roots: list[int], worker: int
    ) -> None:
        """`roots` are the processes that work here, `worker` one of them: the supervisor."""
        self._callers = callers
        self._folder, self._notes, self._env, self._roots, self._worker = place.folder, notes, env, roots, worker
        self._loads = 0

    def capacity(self, seconds: float) -> float:
        """Tasks a second while callers keep the queue filled; the first quarter is not counted."""
        path, first = self._next()
        began = call(
            OFFER, "closed_loop", self._env, path=str(path), first=first, callers=self._callers, seconds=seconds
        )
        return self._ended(path).rate(began + seconds / 4, began + seconds)

    def offer(self, phases: Sequence[tuple[float, float]], *, asking: int | None = None) -> Seen:
        """As `offer.open_loop`; returns when all has ended that was accepted."""
        path, first = self._next()
        before = set(tree(self._worker))
        roots = list(self._roots)
        arguments = {
            "path": str(path),
            "first": first,
            "phases": phases,
            "callers": self._callers,
            "seed": self._loads,
            "asking": asking,
        }
        with Vigil(lambda: roots, self._folder) as vigil, start_call(OFFER, "open_loop", self._env, **arguments) as one:
            roots.append(one.pid)
            began = result_of(one)
            load = self._ended(path)
        return Seen(load, began, vigil, len(before - set(tree(self._worker))))

    def _next(self) -> tuple[Path, int]:
        self._loads += 1
        return self._notes / f"calls-{self._loads}", self._loads * NUMBERS

    def _ended(self, path: Path) -> Load:
        """That load, when all of its tasks have ended, or nothing has for long."""
        calls, file = read_calls(path), self._notes / "ends"
        size, moved = 0, time.monotonic()
        while True:
            ends = file.read_bytes() if file.exists() else b""
            whole = len(ends) // NOTE.size * NOTE.size
            load = Load(calls, NOTE.iter_unpack(ends[:whole]))
            if len(ends) != size:
                size, moved = len(ends), time.monotonic()
            if not load.lost or time.monotonic() - moved > STUCK:
                return load
            time.sleep(0.2)


@contextmanager
def site(place: Place, trial: Trial) -> Iterator[Site]:
    with place.private() as folder, _server(place, trial.engine) as (url, pids), _results(place, trial) as results:
        notes = folder / "notes"
        notes.mkdir()
        kept = KEPT if trial.engine != "penstock" else None
        pressed = Pressed(str(notes / "ends"), trial.seconds, trial.length, trial.latency, trial.cpu, kept, results)
        env = {**os.environ, URL: url, PRESSED: msgspec.json.encode(pressed).decode()}
        with workers(env, "--app=bench.pressure.tasks", f"--concurrency={trial.slots}") as [worker]:
            yield Site(place, notes, env, trial.callers, [*pids, worker.pid], worker.pid)


@contextmanager
def _results(place: Place, trial: Trial) -> Iterator[str | None]:
    """Where they are, if not beside the tasks: with what RabbitMQ cannot keep itself."""
    if trial.engine != "rabbitmq":
        yield None
        return
    with SERVERS["redis"](place) as sites, sites() as found:
        yield found.url


@contextmanager
def _server(place: Place, engine: str) -> Iterator[tuple[str, list[int]]]:
    """An empty one: its URL, and the processes that it is."""
    if engine == "sqlite":
        with place.private() as folder:
            yield f"sqlite:///{folder / 'queue.db'}", []
    elif engine == "penstock":
        with broker_site(place, "power") as server:
            assert server.process is not None
            yield server.url, [server.process.pid]
    else:
        with SERVERS[engine](place) as sites, sites() as found:
            yield found.url, [found.pid]
