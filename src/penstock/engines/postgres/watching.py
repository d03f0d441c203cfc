"""Subscriptions: who waits for which outcomes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

from penstock.backend import Notify
from penstock.broker import Key
from penstock.engines.postgres.bells import FALLBACK, Bells, Horizon
from penstock.engines.postgres.connecting import Connection, Links
from penstock.engines.postgres.looking import Lookup
from penstock.engines.postgres.naming import BUCKET
from penstock.errors import PenstockError
from penstock.outcome import Report

RETRYING = 0.5
ENOUGH = 30.0
AT_ONCE = 5_000
"""Outcomes asked for in one statement."""


class Watcher:
    """One subscription."""

    def __init__(self, watching: Watching, keys: Sequence[Key], notify: Notify) -> None:
        self._watching = watching
        self.keys = set(keys)
        """What it still waits for."""
        self.notify = notify
        self.closed = False

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._watching.soon(self)


class Watching:
    """Used on the loop thread, but for `soon`."""

    def __init__(self, links: Links, lookup: Lookup, loop: asyncio.AbstractEventLoop) -> None:
        self._links = links
        self._lookup = lookup
        self._loop = loop
        self.bells: Bells | None = None
        self._unnamed: dict[Key, set[Watcher]] = {}
        """Keys whose numbers are not known yet."""
        self._waiting: dict[int, dict[Key, set[Watcher]]] = {}
        self._buckets: dict[int, set[int]] = {}
        self._ripe: set[int] = set()
        """Numbers to look at; whatever `_unnamed` has is always looked at."""
        self._fresh = False
        """Somebody came whose first look is still to be made."""
        self._something = asyncio.Event()
        self._looker: asyncio.Task[None] | None = None

    def soon(self, watcher: Watcher) -> None:
        """Begin or end to watch, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._remove if watcher.closed else self._add, watcher)

    def told(self, payload: str | None) -> None:
        """These buckets (`None`: any) have new outcomes."""
        if payload is None:
            self._ripe.update(self._waiting)
        else:
            for bucket in payload.split():
                self._ripe |= self._buckets.get(int(bucket), set())
        if self._ripe or self._unnamed:
            self._something.set()

    def _add(self, watcher: Watcher) -> None:
        if watcher.closed:
            return
        for key in watcher.keys:
            self._unnamed.setdefault(key, set()).add(watcher)
        self._fresh = True
        self._something.set()
        if self._looker is None:
            self._looker = self._loop.create_task(self._look())

    def _remove(self, watcher: Watcher) -> None:
        if not watcher.keys:
            return  # it was told of all
        for key in watcher.keys:
            listed = self._unnamed.get(key)
            if listed is not None:
                listed.discard(watcher)
                if not listed:
                    del self._unnamed[key]
        for number in [n for n, keys in self._waiting.items() if any(watcher in one for one in keys.values())]:
            keys = self._waiting[number]
            for key in [key for key, watchers in keys.items() if watcher in watchers]:
                keys[key].discard(watcher)
                if not keys[key]:
                    del keys[key]
            if not keys:
                self._drop(number)

    def _drop(self, number: int) -> None:
        del self._waiting[number]
        self._ripe.discard(number)
        listed = self._buckets[number >> BUCKET]
        listed.discard(number)
        if not listed:
            del self._buckets[number >> BUCKET]

    async def _look(self) -> None:
        """Look at what is ripe; at all from time to time, and until nothing can have been missed (see bells.py)."""
        assert self.bells is not None
        horizon: Horizon | None = None
        while True:
            try:
                busy = bool(self._waiting or self._unnamed)
                nap = (horizon.pause() if horizon is not None else FALLBACK) if busy else None
                if not await _within(self._something.wait(), nap) or horizon is not None:
                    self._ripe.update(self._waiting)  # a look that settles the horizon is a look at all
                self._something.clear()
                if not self._waiting and not self._unnamed:
                    horizon = None
                    continue
                await self.bells.watch()
                fresh, self._fresh = self._fresh, False
                oldest, newest = await self._links.call(self._find, ENOUGH, repeat=True)
                if fresh:
                    horizon = Horizon()
                if horizon is not None and horizon.settled(oldest, newest):
                    horizon = None
            except (PenstockError, OSError):
                self._ripe.update(self._waiting)
                self._something.set()
                await asyncio.sleep(RETRYING)

    async def _find(self, connection: Connection) -> tuple[int, int]:
        """Look, and tell what was found."""
        if self._unnamed:
            for key, number in (await self._lookup.numbers(connection, list(self._unnamed))).items():
                watchers = self._unnamed.pop(key, None)
                if watchers is not None:
                    self._waiting.setdefault(number, {}).setdefault(key, set()).update(watchers)
                    self._buckets.setdefault(number >> BUCKET, set()).add(number)
                    self._ripe.add(number)
        ripe = sorted(self._ripe)
        self._ripe.clear()  # before asking: what is told meanwhile may be newer than the answer
        try:
            return await self._tell_ended(connection, ripe)
        except BaseException:
            self._ripe.update(number for number in ripe if number in self._waiting)
            raise

    async def _tell_ended(self, connection: Connection, ripe: Sequence[int]) -> tuple[int, int]:
        oldest, newest = 0, 0
        for start in range(0, max(1, len(ripe)), AT_ONCE):
            found, (first, newest) = await self._lookup.ended(connection, ripe[start : start + AT_ONCE])
            oldest = first if start == 0 else min(oldest, first)
            reports: dict[Watcher, list[Report]] = {}
            for number, stored in found.items():
                for key, watchers in self._waiting.get(number, {}).items():
                    for one in watchers:
                        one.keys.discard(key)
                        reports.setdefault(one, []).append(self._lookup.told(key, stored))
                if number in self._waiting:
                    self._drop(number)
            for one, mine in reports.items():
                if not one.closed:
                    one.notify(mine)
        return oldest, newest

    async def close(self) -> None:
        if self._looker is not None:
            self._looker.cancel()


async def _within(call: Coroutine[Any, Any, bool], seconds: float | None) -> bool:
    """Whether `call` ended in time."""
    try:
        async with asyncio.timeout(seconds):
            await call
    except TimeoutError:
        return False
    return True
