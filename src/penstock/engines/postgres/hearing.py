"""Who waits for which parts: rung when some may have come, and when an outcome is stored."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

from penstock.broker import Key
from penstock.engines.postgres.bells import FALLBACK, Bells, Horizon
from penstock.engines.postgres.connecting import Connection, Links
from penstock.engines.postgres.looking import Lookup
from penstock.engines.postgres.naming import BUCKET
from penstock.errors import PenstockError

log = logging.getLogger("penstock.engine")

PART = "p"
"""Before the number of a task, where the server tells of its parts."""
RETRYING = 0.5
ENOUGH = 30.0


class Ear:
    """One subscription."""

    def __init__(self, hearing: Hearing, key: Key, notify: Callable[[], None]) -> None:
        self._hearing = hearing
        self._notify = notify
        self.key = key
        self.closed = False

    def ring(self) -> None:
        if self.closed:
            return
        try:
            self._notify()
        except Exception:  # its loop was closed just now: the others still want to know
            log.debug("somebody who waited for parts is gone", exc_info=True)

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._hearing.soon(self)


class Hearing:
    """Used on the loop thread, but for `soon`."""

    def __init__(self, links: Links, lookup: Lookup, bells: Bells, loop: asyncio.AbstractEventLoop) -> None:
        self._links = links
        self._lookup = lookup
        self._bells = bells
        self._loop = loop
        self._ears: dict[Key, set[Ear]] = {}
        self._keys: dict[int, set[Key]] = {}
        """By number."""
        self._unnamed: set[Key] = set()
        """Those whose number is not known; a name may get one with the first parts."""
        self._young: set[Ear] = set()
        """For whom something may still have been missed."""
        self._fresh = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def soon(self, ear: Ear) -> None:
        """Begin or end to hear, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._remove if ear.closed else self._add, ear)

    def told(self, payload: str | None) -> None:
        """Of this task, or of one of these buckets, there is news; `None`: maybe of any."""
        if not self._ears:
            return
        if self._unnamed or payload is None:
            self._young.update(*(self._ears[key] for key in (self._unnamed if payload is not None else self._ears)))
            self._fresh.set()  # look for their numbers, and register again
        if payload is None:
            self._ring(list(self._ears))
        elif payload.startswith(PART):
            self._ring(list(self._keys.get(int(payload[len(PART) :]), ())))
        else:
            buckets = set(map(int, payload.split()))
            self._ring([key for number, keys in self._keys.items() if number >> BUCKET in buckets for key in keys])

    def _ring(self, keys: list[Key]) -> None:
        for key in keys:
            for ear in list(self._ears.get(key, ())):
                ear.ring()

    def _add(self, ear: Ear) -> None:
        if ear.closed:
            return
        if ear.key not in self._ears:
            self._ears[ear.key] = set()
            self._unnamed.add(ear.key)
        self._ears[ear.key].add(ear)
        self._young.add(ear)
        self._fresh.set()
        if self._keeper is None:
            self._keeper = self._loop.create_task(self._keep())

    def _remove(self, ear: Ear) -> None:
        self._young.discard(ear)
        ears = self._ears.get(ear.key, set())
        ears.discard(ear)
        if not ears:
            self._ears.pop(ear.key, None)
            self._unnamed.discard(ear.key)
            for number in [number for number, keys in self._keys.items() if ear.key in keys]:
                self._keys[number].discard(ear.key)
                if not self._keys[number]:
                    del self._keys[number]

    async def _keep(self) -> None:
        """Stay registered while somebody hears. Ring all from time to time; and who came, until nothing can have been
        missed (see bells.py)."""
        horizon: Horizon | None = None
        while True:
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._nap(horizon)):
                        await self._fresh.wait()
                if self._fresh.is_set():
                    self._fresh.clear()
                    horizon = Horizon()
                if not self._ears:
                    horizon = None
                    continue
                await self._bells.watch(parts=True)
                young = set(self._young)
                oldest, newest = await self._links.call(self._look, ENOUGH, repeat=True)
                if horizon is None:
                    self._ring(list(self._ears))
                    continue
                for ear in young:
                    ear.ring()
                if horizon.settled(oldest, newest):
                    horizon = None
                    self._young -= young
            except (PenstockError, OSError):
                self._fresh.set()
                await asyncio.sleep(RETRYING)

    def _nap(self, horizon: Horizon | None) -> float | None:
        if horizon is not None:
            return horizon.pause()
        return FALLBACK if self._ears else None

    async def _look(self, connection: Connection) -> tuple[int, int]:
        """Find the numbers, and what ran at this moment."""
        row = await connection.fetchrow(
            "SELECT pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text FROM pg_current_snapshot() s"
        )
        known = await self._lookup.numbers(connection, list(self._ears))
        self._unnamed = self._ears.keys() - known.keys()
        self._keys = {}
        for key, number in known.items():
            if key in self._ears:
                self._keys.setdefault(number, set()).add(key)
        return int(row[0]), int(row[1])

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
