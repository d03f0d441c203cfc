"""Guards that are decided at the publish, inside its transaction: who is held off, who gives way, what is noted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.broker import Answer, Conflict, Duplicate, Fenced, Key
from penstock.coordinator import Revoked
from penstock.engines.sqlite.catalog import Catalog
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import lane_of
from penstock.engines.sqlite.revoking import Revoker
from penstock.message import Dedup, Fence, Guard, Limit, Message, Unique


class Guards:
    def __init__(self, db: Database, catalog: Catalog, revoker: Revoker, now: Callable[[], float]) -> None:
        self._db = db
        self._catalog = catalog
        self._revoker = revoker
        self._now = now

    def refusal(self, message: Message) -> Answer | None:
        """The answer to a message that a guard holds off."""
        for guard in message.guards:
            match guard:
                case Unique(key=key):
                    holder = None if displaces(guard) else self._holder(key)
                    if holder is not None:
                        return Conflict(key, self._name(holder))
                case Dedup(key=key):
                    seen = self._db.execute("SELECT id, until FROM dedup WHERE name = ?", (key,)).fetchone()
                    if seen and seen[1] > self._now():
                        return Duplicate(self._name(seen[0]))
                case Fence(name=name, token=token):
                    leader = self._db.execute("SELECT token, until FROM leader WHERE name = ?", (name,)).fetchone()
                    if not leader or leader[0] != token or leader[1] <= self._now():
                        return Fenced(name)
                case Limit():
                    pass
        return None

    def _holder(self, key: str) -> int | None:
        """The row that holds a unique key now."""
        held = self._db.execute("SELECT id, until FROM unique_key WHERE name = ?", (key,)).fetchone()
        return held[0] if held and (held[1] is None or held[1] > self._now()) else None

    def _name(self, row: int) -> Key:
        """The id that somebody chose for a row, else the row."""
        chosen = self._db.execute("SELECT name FROM alias WHERE id = ?", (row,)).fetchone()
        return chosen[0] if chosen else row

    def leaving(self, batch: Sequence[tuple[Message, int, int]]) -> dict[int, tuple[int, int]]:
        """Queue and bytes of each task that would end for the messages of `batch`, which come with theirs, by row:
        waiting holders of keys that they take. Those that take them from each other have negative numbers."""
        found: dict[int, tuple[int, int]] = {}
        taken: dict[str, int] = {}
        for number, (message, _, _) in enumerate(batch, 1):
            for guard in message.guards:
                if isinstance(guard, Unique) and displaces(guard):
                    if guard.key in taken:
                        _, queue, size = batch[taken[guard.key] - 1]
                        found[-taken[guard.key]] = queue, size
                    elif (row := self._holder(guard.key)) is not None and self._revoker.waits(row):
                        [size] = self._db.execute("SELECT length(body) FROM task WHERE id = ?", (row,)).fetchone()
                        found[row] = self._catalog.by_id(lane_of(row)).queue, size
            taken.update((guard.key, number) for guard in message.guards if isinstance(guard, Unique))
        return found

    def make_way(self, message: Message) -> bool:
        """End, or revoke, those whose keys the message takes; whether somebody is to be told of that."""
        told = False
        for guard in message.guards:
            if isinstance(guard, Unique) and displaces(guard):
                row = self._holder(guard.key)
                if row is not None and (guard.on_conflict == "cancel" or self._revoker.waits(row)):
                    told |= self._revoker.revoke(row, terminate=True) is Revoked.REMOVED
        return told

    def register(self, guards: Sequence[Guard], row: int) -> None:
        """The rows by which a key is recognised later."""
        now = self._now()
        for guard in guards:
            match guard:
                case Unique(key=key, ttl=ttl):
                    held = (key, row, None if ttl is None else now + ttl, int(guard.until == "ttl"))
                    self._db.execute("INSERT OR REPLACE INTO unique_key VALUES (?, ?, ?, ?)", held)
                case Dedup(key=key, ttl=ttl):
                    self._db.execute("INSERT OR REPLACE INTO dedup VALUES (?, ?, ?)", (key, row, now + ttl))
                case Fence() | Limit():
                    pass


def displaces(guard: Unique) -> bool:
    """It takes the key from whoever holds it."""
    return guard.on_conflict in ("replace", "cancel")


def marks(message: Message) -> list[str]:
    """All by which a second message of the same batch would be recognised as a repeat."""
    return _marks(message, message.guards)


def repeats(message: Message) -> list[str]:
    """All by which it would be one itself."""
    return _marks(message, [one for one in message.guards if not (isinstance(one, Unique) and displaces(one))])


def _marks(message: Message, guards: Sequence[Guard]) -> list[str]:
    keys = [f"id {message.id}"] if message.id is not None else []
    return keys + [f"{type(guard).__name__} {guard.key}" for guard in guards if isinstance(guard, Unique | Dedup)]
