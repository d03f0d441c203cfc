"""What a worker is told on its command line."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.exchanges import SeveralQueues
from penstock.metrics.place import Place
from penstock.queue import worker_direct
from penstock.routing import fixed

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.config import Config

DEFAULT_POOL = "prefork"
COROUTINES = 100
"""Slots of an event loop, when nobody says how many."""


class WorkerOptions(Struct, frozen=True, kw_only=True):
    """`concurrency` is in processes, threads or coroutines, by `pool`; `None` leaves it to the app's settings, and then
    to the number of cores. `queues` empty: all that the app declares. `max_memory_per_child` is in KiB, `lease` in
    seconds. `burst`: end when there is nothing ready to start (what is due later stays). `beat`: publish what is due,
    too. `metrics`: where to serve them."""

    concurrency: int | None = None
    pool: str | None = None
    queues: tuple[str, ...] = ()
    name: str | None = None
    loglevel: str = "INFO"
    burst: bool = False
    beat: bool = False
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    lease: float | None = None
    metrics: Place | None = None

    def __post_init__(self) -> None:
        for setting in ("concurrency", "max_tasks_per_child", "max_memory_per_child"):
            value = getattr(self, setting)
            if value is not None and value < 1:
                raise ConfigError(f"{setting} must be at least 1, not {value!r}")
        if self.beat and self.burst:
            raise ConfigError("a beat ends never, and a burst when nothing is ready: give -B or --burst, not both")
        if self.lease is not None and not self.lease >= 1:
            raise ConfigError(f"lease must be at least 1 second, not {self.lease!r}")

    def settle(self, app: Penstock) -> Settled:
        """Nothing left open. Raises `ConfigError`, `UnknownQueue`."""
        conf = app.conf
        pool, name = self.pool or conf.worker_pool or DEFAULT_POOL, self.full_name()
        queues = tuple(dict.fromkeys(self._served(conf, one, name) for one in self.queues)) or _all_queues(app, name)
        return Settled(
            name=name,
            pool=pool,
            concurrency=self.concurrency or conf.worker_concurrency or _default_concurrency(pool),
            queues=(worker_direct(name), *queues) if conf.worker_direct else queues,
            in_turn=not self.queues,
            namespace=conf.namespace,
            lease=self.lease or conf.lease,
            burst=self.burst,
            beat=self.beat,
            max_tasks_per_child=self.max_tasks_per_child or conf.worker_max_tasks_per_child,
            max_memory_per_child=self.max_memory_per_child or conf.worker_max_memory_per_child,
            metrics=self.metrics,
        )

    def _served(self, conf: Config, queue: str, worker: str) -> str:
        """The queue that -Q names; of a broadcast, this worker's own."""
        mine = (one.queue_of(worker, conf.namespace) for one in conf.broadcasts if one.name == queue)
        return next(mine, None) or conf.check_queue(queue)

    def full_name(self) -> str:
        """`name@host`, with %h the host's name and %p the process's id."""
        host = socket.gethostname()
        name = (self.name or "penstock").replace("%h", host).replace("%p", str(os.getpid()))
        return name if "@" in name else f"{name}@{host}"


class Settled(Struct, frozen=True, kw_only=True):
    """The same with nothing left open."""

    name: str
    pool: str
    concurrency: int
    queues: tuple[str, ...]
    in_turn: bool
    """No order of queues was asked for: each goes first once, so that a full one does not starve the rest."""
    namespace: str
    lease: float
    burst: bool
    beat: bool
    max_tasks_per_child: int | None
    max_memory_per_child: int | None
    metrics: Place | None = None


def _all_queues(app: Penstock, worker: str) -> tuple[str, ...]:
    """The declared queues, this worker's part of broadcasts, and the queues that registered tasks go to, by what they
    or the tables of routes say. What a function would say of a call is not known."""
    conf = app.conf
    found = [queue.name for queue in conf.queues]
    found += [broadcast.queue_of(worker, conf.namespace) for broadcast in conf.broadcasts]
    for task in app.tasks.values():
        said = task.options.queue if "queue" in task.own else fixed(conf.task_routes, task.name).get("queue")
        place = conf.address(said or conf.task_default_queue)
        if not isinstance(place, SeveralQueues):
            found.append(place)
    return tuple(dict.fromkeys(found))


def _default_concurrency(pool: str) -> int:
    if pool == "solo":
        return 1
    return COROUTINES if pool == "asyncio" else os.cpu_count() or 1
