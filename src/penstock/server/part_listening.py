"""The tasks to whose parts one client listens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.engines.sqlite.listening import Ear
from penstock.engines.sqlite.store import Store


class PartListening:
    def __init__(self, store: Store, push: Callable[[int | str], None]) -> None:
        """`push` is given a key, as it was listened for, when there may be more."""
        self._store = store
        self._push = push
        self._ears: dict[int | str, Ear] = {}

    def __len__(self) -> int:
        return len(self._ears)

    def __contains__(self, key: object) -> bool:
        return key in self._ears

    def add(self, keys: Sequence[int | str]) -> None:
        store = self._store
        for key in keys:
            watched = store.watched(key)
            ear = self._ears[key] = store.ears.add(watched, lambda key=key: self._push(key))  # type: ignore[misc]  # mypy: lambda default
            ear.watch = store.watches.add([watched], ear.tell)

    def drop(self, keys: Sequence[int | str]) -> None:
        for key in keys:
            ear = self._ears.pop(key, None)
            if ear is not None:
                ear.close()

    def close(self) -> None:
        self.drop(list(self._ears))
