"""Subscriptions: who waits for which outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.backend import Notify
from penstock.broker import Key
from penstock.engines.postgres.bells import FALLBACK, Bells
from penstock.engines.postgres.connecting import Connection, Links
from penstock.engines.postgres.looking import Lookup
from penstock.engines.postgres.naming import BUCKET
from penstock.errors import PenstockError
from penstock.outcome import Report

RETRYING = 0.5
ENOUGH = 60.0


class Watcher:
    """One subscription: the keys that it still waits for. `numbers` are those of keys that are known by now."""

    def __init__(self, watching: Watching, keys: Sequence[Key], notify: Notify) -> None:
        self._watching = watching
        self.keys = set(keys)
        self.numbers: dict[Key, int] = {}
        self.notify = notify
        self.closed = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._watching.soon(self)


class Watching:
    """Used on the loop thread, but for `soon` and the making of a `Watcher`."""

    def __init__(self, links: Links, lookup: Lookup, loop: asyncio.AbstractEventLoop) -> None:
        self._links = links
        self._lookup = lookup
        self._loop = loop
        self.bells: Bells | None = None
        self._watchers: set[Watcher] = set()
        self._buckets: dict[int, set[Watcher]] = {}
        self._ripe: set[Watcher] = set()
        self._fresh = False
        self._something = asyncio.Event()
        self._looker: asyncio.Task[None] | None = None

    def soon(self, watcher: Watcher) -> None:
        """Begin or end to watch, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._remove if watcher.closed else self._add, watcher)

    def told(self, payload: str | None) -> None:
        """These buckets (`None`: any) have new outcomes."""
        if payload is None:
            self._ripe |= self._watchers
        else:
            for bucket in payload.split():
                self._ripe |= self._buckets.get(int(bucket), set())
            self._ripe |= {one for one in self._watchers if len(one.numbers) < len(one.keys)}
        if self._ripe:
            self._something.set()

    def _add(self, watcher: Watcher) -> None:
        if watcher.closed:
            return
        self._watchers.add(watcher)
        self._ripe.add(watcher)
        self._fresh = True
        self._something.set()
        if self._looker is None:
            self._looker = self._loop.create_task(self._look())

    def _remove(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        self._ripe.discard(watcher)
        for number in watcher.numbers.values():
            self._unlist(watcher, number)

    def _unlist(self, watcher: Watcher, number: int) -> None:
        listed = self._buckets.get(number >> BUCKET)
        if listed is not None:
            listed.discard(watcher)
            if not listed:
                del self._buckets[number >> BUCKET]

    async def _look(self) -> None:
        """Look at what is ripe; at all from time to time, and until nothing can have been missed."""
        assert self.bells is not None
        unsure: int | None = None
        pause = 0.004
        while True:
            try:
                nap = pause if unsure is not None else FALLBACK
                if not await _within(self._something.wait(), nap if self._watchers else None):
                    self._ripe |= self._watchers
                self._something.clear()
                ripe, self._ripe = self._ripe, set()
                if ripe:
                    await self.bells.watch()
                    fresh, self._fresh = self._fresh, False
                    found, oldest, newest = await self._links.call(
                        lambda c, ripe=ripe: self._find(c, ripe), ENOUGH, repeat=True
                    )
                    self._tell(found)
                    # As in bells.py: the last look is one after all that ran at the first.
                    if fresh:
                        unsure, pause = newest, 0.004
                    if unsure is not None and oldest >= unsure:
                        unsure = None
                    pause = min(pause * 2, 0.5)
                if not self._watchers:
                    unsure = None
            except (PenstockError, OSError):
                self._ripe |= self._watchers
                self._something.set()
                await asyncio.sleep(RETRYING)

    async def _find(self, connection: Connection, ripe: set[Watcher]) -> tuple[dict[Key, Report], int, int]:
        oldest, newest = await connection.fetchrow(
            "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint FROM pg_current_snapshot() s"
        )
        unknown = {key for one in ripe for key in one.keys if key not in one.numbers}
        if unknown:
            numbers = await self._lookup.numbers(connection, unknown)
            for one in ripe:
                for key in one.keys & numbers.keys():
                    one.numbers[key] = numbers[key]
                    self._buckets.setdefault(numbers[key] >> BUCKET, set()).add(one)
        asked = {key: one.numbers[key] for one in ripe for key in one.keys if key in one.numbers}
        return await self._lookup.ended(connection, asked), oldest, newest

    def _tell(self, found: dict[Key, Report]) -> None:
        for one in list(self._watchers):
            mine = [found[key] for key in one.keys & found.keys()]
            if not mine or one.closed:
                continue
            for key in one.keys & found.keys():
                one.keys.discard(key)
                number = one.numbers.pop(key, None)
                if number is not None and number >> BUCKET not in {n >> BUCKET for n in one.numbers.values()}:
                    self._unlist(one, number)
            if not one.keys:
                self._remove(one)
            one.notify(mine)

    async def close(self) -> None:
        if self._looker is not None:
            self._looker.cancel()


async def _within(call: asyncio.Future[bool] | object, seconds: float | None) -> bool:
    """Whether `call` ended in time."""
    try:
        await asyncio.wait_for(call, seconds)  # type: ignore[arg-type]  # a coroutine
    except TimeoutError:
        return False
    return True
