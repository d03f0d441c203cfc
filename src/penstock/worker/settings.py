"""What a worker is told on its command line."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.queue import worker_direct
from penstock.routing import fixed

if TYPE_CHECKING:
    from penstock.app import Penstock

DEFAULT_POOL = "prefork"
COROUTINES = 100
"""Slots of an event loop, when nobody says how many."""


class WorkerOptions(Struct, frozen=True, kw_only=True):
    """`concurrency` is in processes, threads or coroutines, by `pool`; `None` leaves it to the app's settings, and then
    to the number of cores. `queues` empty: all that the app declares. `max_memory_per_child` is in KiB, `lease` in
    seconds. `burst`: end when there is nothing ready to start (what is due later stays)."""

    concurrency: int | None = None
    pool: str | None = None
    queues: tuple[str, ...] = ()
    name: str | None = None
    loglevel: str = "INFO"
    burst: bool = False
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    lease: float | None = None

    def __post_init__(self) -> None:
        for setting in ("concurrency", "max_tasks_per_child", "max_memory_per_child"):
            value = getattr(self, setting)
            if value is not None and value < 1:
                raise ConfigError(f"{setting} must be at least 1, not {value!r}")
        if self.lease is not None and not self.lease >= 1:
            raise ConfigError(f"lease must be at least 1 second, not {self.lease!r}")

    def settle(self, app: Penstock) -> Settled:
        """Nothing left open. Raises `ConfigError`, `UnknownQueue`."""
        conf = app.conf
        pool, name = self.pool or conf.worker_pool or DEFAULT_POOL, self.full_name()
        queues = tuple(dict.fromkeys(conf.check_queue(name) for name in self.queues)) or _all_queues(app)
        return Settled(
            name=name,
            pool=pool,
            concurrency=self.concurrency or conf.worker_concurrency or _default_concurrency(pool),
            queues=(worker_direct(name), *queues) if conf.worker_direct else queues,
            in_turn=not self.queues,
            namespace=conf.namespace,
            lease=self.lease or conf.lease,
            burst=self.burst,
            max_tasks_per_child=self.max_tasks_per_child or conf.worker_max_tasks_per_child,
            max_memory_per_child=self.max_memory_per_child or conf.worker_max_memory_per_child,
        )

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
    max_tasks_per_child: int | None
    max_memory_per_child: int | None


def _all_queues(app: Penstock) -> tuple[str, ...]:
    """The declared queues, and those that registered tasks go to, by what they or the tables of routes say. What a
    function would say of a call is not known."""
    conf = app.conf
    found = [queue.name for queue in conf.queues]
    for task in app.tasks.values():
        said = task.options.queue if "queue" in task.own else fixed(conf.task_routes, task.name).get("queue")
        found.append(conf.check_queue(said or conf.task_default_queue))
    return tuple(dict.fromkeys(found))


def _default_concurrency(pool: str) -> int:
    if pool == "solo":
        return 1
    return COROUTINES if pool == "asyncio" else os.cpu_count() or 1
