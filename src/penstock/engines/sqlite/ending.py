"""What the end of a task brings about, inside a write transaction: effects, and the rows that only a live task has."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from penstock.effects import Effect, Join, Publish, Put, ReleaseKey
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.publishing import Publisher, Wake
from penstock.errors import Unsupported


class Ending:
    def __init__(self, db: Database, publisher: Publisher) -> None:
        self._db = db
        self._publisher = publisher

    def apply(self, effects: Sequence[Effect], row: int, wake: Wake) -> None:
        for effect in effects:
            match effect:
                case Publish(message=message):
                    self._publisher.follow_up(message, wake)
                case ReleaseKey(key=key):
                    self._db.execute("DELETE FROM unique_key WHERE name = ? AND id = ?", (key, row))
                case Join():
                    self._join(effect, wake)
                case Put(key=key, value=value, if_version=version):
                    self.put(key, value, version)
                case _:
                    raise Unsupported(f"this engine has no {type(effect).__name__} effect")

    def _join(self, effect: Join, wake: Wake) -> None:
        self._db.execute("INSERT OR IGNORE INTO joining VALUES (?, ?, 0)", (effect.id, effect.size))
        self._db.execute("INSERT OR IGNORE INTO joined VALUES (?, ?, ?)", (effect.id, effect.index, effect.value))
        if not self._db.changes():
            return  # a repeat
        done, size = self._db.execute(
            "UPDATE joining SET done = done + 1 WHERE name = ? RETURNING done, size", (effect.id,)
        ).fetchone()
        if done != size:
            return
        values = self._db.execute("SELECT value FROM joined WHERE name = ? ORDER BY n", (effect.id,)).fetchall()
        body = b"[" + b",".join(value for (value,) in values) + b"]"
        self._publisher.follow_up(replace(effect.then, body=body), wake)
        self._db.execute(
            "DELETE FROM joined WHERE name = ?", (effect.id,)
        )  # `joining` stays, so that repeats stay repeats

    def put(self, key: str, value: bytes | None, if_version: int | None) -> int | None:
        """Set a value of the shared state; its new version, or `None` when `if_version` is not the present one."""
        row = self._db.execute("SELECT version FROM state WHERE key = ?", (key,)).fetchone()
        if if_version is not None and if_version != (row[0] if row else 0):
            return None
        # Never the same twice, even after a delete.
        version: int = self._db.execute(
            "UPDATE meta SET value = value + 1 WHERE name = 'version' RETURNING value"
        ).fetchone()[0]
        if value is None:
            self._db.execute("DELETE FROM state WHERE key = ?", (key,))
        else:
            self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", (key, value, version))
        return version

    def forget_names(self, low: int, high: int) -> None:
        """Rows low..high are gone without an outcome."""
        self._db.execute("DELETE FROM alias WHERE id BETWEEN ? AND ?", (low, high))

    def clear(self, low: int, high: int) -> None:
        """Rows low..high are gone: so is what is known of them, but for names and outcomes."""
        self._db.execute("DELETE FROM revoked WHERE id BETWEEN ? AND ?", (low, high))
        self._db.execute("DELETE FROM progress WHERE id BETWEEN ? AND ?", (low, high))
