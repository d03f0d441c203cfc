"""`result_backend="django-db://"`: an engine that keeps results in Django's database, through its ORM, and no tasks.

It needs nothing that the project has not: any database that Django speaks to, its migrations, its backups. Who waits
looks again and again, which is slower than to be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import django
from django.apps import apps
from django.conf import settings
from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    close_old_connections,
    connections,
)

from penstock.backend import Lost, Notify, Subscription
from penstock.broker import Features, Key
from penstock.clock import Clock, SystemClock
from penstock.contrib.django.awaited_results import Waits
from penstock.errors import BrokerError, BrokerUnavailable, ConfigError, Unsupported
from penstock.outcome import Outcome, Parts, Progress, Report
from penstock.queue import Queue

T = TypeVar("T")

SCHEME = "django-db"
LABEL = "penstock"
RESULTS_ONLY = (
    "django-db keeps results only: name another broker, such as sqlite:///queue.db, and leave it as result_backend"
)
NO_PARTS = "django-db keeps no parts of running tasks: set result_backend to where they shall be kept"
FEATURES = Features(
    engine=SCHEME,
    atomic_settle=False,
    max_batch=1_000,
    effects=frozenset(),
    guards=frozenset(),
    knows_ids=False,
    delay=False,
    priority=False,
    bound="none",
    starts=False,
    partition=False,
    revoke_queued=False,
    coordination=False,
    pause=False,
)


class NoTasks:
    """The verbs of a broker, of a coordinator and of an inspection, for an engine that has no tasks."""

    features = FEATURES

    def public_id(self, key: Key) -> str:
        return str(key)

    def record_start(self, slot: int, receipt: object) -> None:
        """There are none."""

    def interrupt(self) -> None:
        """Nobody waits here for tasks."""

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        if queues:
            self._refuse()

    async def members(self) -> Sequence[Any]:
        return ()

    async def _refused(self, *_: object, **__: object) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise Unsupported(RESULTS_ONLY)

    publish = follow_up = step = extend = depth = _refused
    revoke = join = renew = leave = bury = workers = acquire = resign = get = put = _refused
    queues = peek = purge = pause = resume = dead_letters = retry_dead = drop_dead = _refused


class Upkeep(NoTasks):
    def __init__(self, expire: Callable[[], None]) -> None:
        self._expire = expire

    async def reap(self) -> int:
        self._expire()
        return 0


class DjangoResults:
    """The engine. It is its own backend: nothing else is here.

    A thread of its own does the work, with a connection of its own: what is stored commits by itself, whatever
    transaction the caller is in, a running loop is not in the way, and no thread is left with a connection that nobody
    closes."""

    transactional = None
    url = f"{SCHEME}://"

    def __init__(self, alias: str, clock: Clock, expires: float) -> None:
        from penstock.contrib.django.orm_results import OrmResults  # Django must be set up

        if alias != DEFAULT_DB_ALIAS:
            self.url = f"{SCHEME}://{alias}"
        self._alias = alias
        self._now = clock.time
        self._rows = OrmResults(alias, expires)
        self._fresh()
        self.backend = self
        self.broker: Any = NoTasks()
        self.inspect: Any = self.broker
        self.coordinator: Any = Upkeep(lambda: self._guarded(self._rows.drop_expired))

    def _fresh(self) -> None:
        self._pid = os.getpid()
        self._thread = ThreadPoolExecutor(1, "penstock-django")
        self._waits = Waits(self._look, connections.close_all)

    def _look(self, ids: Sequence[str]) -> Sequence[Report]:
        return self._guarded(self._rows.fetch, ids)

    def _here(self) -> ThreadPoolExecutor:
        """Its thread. One that was there before a fork does not live here."""
        if self._pid != os.getpid():
            self._fresh()
        return self._thread

    # -- as an engine

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._here().submit(_driven, call).result()

    async def arun(self, call: Coroutine[Any, Any, T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._here(), _driven, call)

    apublish = arun

    def writer_pid(self) -> int | None:
        return None

    def close(self) -> None:
        self._waits.close()
        with contextlib.suppress(RuntimeError):  # it is closed already
            self._here().submit(connections.close_all)
        self._thread.shutdown(wait=False)

    # -- as a backend

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        first = self._guarded(self._rows.store, [(str(key), outcome) for key, outcome in outcomes])
        self._waits.hurry()
        return first

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        return self._guarded(self._rows.fetch, [str(key) for key in keys])

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> Subscription:
        self._here()
        return self._waits.add([str(key) for key in keys], notify)

    def mint(self) -> str | None:
        return None

    def prepare(self, timeout: float) -> None:
        return None

    async def forget(self, keys: Sequence[Key]) -> None:
        self._guarded(lambda now: self._rows.forget([str(key) for key in keys]))

    async def note(self, key: Key, progress: Progress) -> None:
        self._guarded(self._rows.note, str(key), progress)

    async def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        raise Unsupported(NO_PARTS)

    async def parts(self, key: Key, offset: int, limit: int) -> Parts:
        raise Unsupported(NO_PARTS)

    def subscribe_parts(self, key: Key, notify: Callable[[], None], lost: Lost | None = None) -> Subscription:
        raise Unsupported(NO_PARTS)

    def _guarded(self, call: Callable[..., T], *arguments: Any) -> T:
        """`call` with the time behind its arguments. What Django raises becomes ours, with the remedy."""
        try:
            return call(*arguments, self._now())
        except (DatabaseError, InterfaceError) as error:
            connections[self._alias].close_if_unusable_or_obsolete()  # so that the next try has another one
            raise self._told(error) from error

    def _told(self, error: Exception) -> BrokerError:
        # SQLite says in an OperationalError that there is no table.
        if isinstance(error, ProgrammingError) or "no such table" in str(error):
            return BrokerError(f"{self.url}: {error}; run manage.py migrate {LABEL}")
        if isinstance(error, OperationalError | InterfaceError):
            return BrokerUnavailable(f"{self.url}: Django's database {self._alias!r} cannot be reached: {error}")
        return BrokerError(f"{self.url}: {error}")


def _driven(call: Coroutine[Any, Any, T]) -> T:
    """In the engine's thread. Ours never suspend."""
    close_old_connections()
    try:
        call.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # what a coroutine returns is not part of StopIteration's type
    finally:
        call.close()
        close_old_connections()
    raise TypeError("django-db runs its own coroutines only")


def open_engine(
    url: str, *, clock: Clock | None = None, queues: Sequence[Queue] = (), result_expires: float = 86_400.0
) -> DjangoResults:
    """`django-db://`, or `django-db://alias` for another of `DATABASES`. Raises `ConfigError`."""
    alias = url.removeprefix(f"{SCHEME}://").rstrip("/") or DEFAULT_DB_ALIAS
    if queues:
        raise ConfigError(RESULTS_ONLY)
    if not settings.configured and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        raise ConfigError(
            f"{url}: Django is not configured here: set DJANGO_SETTINGS_MODULE, or run manage.py penstock"
        )
    if not apps.ready:
        django.setup()
    if not apps.is_installed("penstock.contrib.django"):
        raise ConfigError(f"{url}: add 'penstock.contrib.django' to INSTALLED_APPS, and run manage.py migrate {LABEL}")
    if alias not in connections:
        known = ", ".join(map(repr, connections))
        raise ConfigError(f"{url}: there is no {alias!r} in Django's DATABASES, which has {known}")
    return DjangoResults(alias, clock or SystemClock(), result_expires)
