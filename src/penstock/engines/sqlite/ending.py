"""What the end of a task brings about, inside a write transaction: effects, and the rows that only a live task has."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from penstock.effects import Effect, Join, Publish, Put, ReleaseKey, array
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.publishing import Publisher, Wake
from penstock.errors import Unsupported


class Ending:
    def __init__(self, db: Database, publisher: Publisher) -> None:
        self._db = db
        self._publisher = publisher

    def apply(self, effects: Sequence[tuple[int, Sequence[Effect]]], wake: Wake) -> None:
        """The effects of each row, in order; joins of many members at once, after the others."""
        joins: dict[str, list[Join]] = {}
        for row, several in effects:
            for effect in several:
                match effect:
                    case Join():
                        joins.setdefault(effect.id, []).append(effect)
                    case Publish(message=message):
                        self._publisher.follow_up(message, wake)
                    case ReleaseKey(key=key):
                        self._db.execute("DELETE FROM unique_key WHERE name = ? AND id = ?", (key, row))
                    case Put(key=key, value=value, if_version=version):
                        self.put(key, value, version)
                    case _:
                        raise Unsupported(f"this engine has no {type(effect).__name__} effect")
        for members in joins.values():
            self._join(members, wake)

    def _join(self, members: Sequence[Join], wake: Wake) -> None:
        """Some members of one join, all of this transaction."""
        name, size, then = members[-1].id, members[-1].size, members[-1].then
        self._db.execute("INSERT OR IGNORE INTO joining VALUES (?, ?, 0)", (name, size))
        before = self._db.all_changes()
        self._db.executemany(
            "INSERT OR IGNORE INTO joined VALUES (?, ?, ?)", [(name, member.index, member.value) for member in members]
        )
        fresh = self._db.all_changes() - before
        if not fresh:
            return  # repeats
        done, size = self._db.execute(
            "UPDATE joining SET done = done + ? WHERE name = ? RETURNING done, size", (fresh, name)
        ).fetchone()
        if done != size:
            return
        values = self._db.execute("SELECT value FROM joined WHERE name = ? ORDER BY n", (name,)).fetchall()
        body = array([value for (value,) in values], then.content_type)
        self._publisher.follow_up(replace(then, body=body), wake)
        # `joining` stays, so that repeats stay repeats.
        self._db.execute("DELETE FROM joined WHERE name = ?", (name,))

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
        """Rows low..high are gone without an outcome. Where there are parts, the name leads to them."""
        self._db.execute(
            "DELETE FROM alias WHERE id BETWEEN ?1 AND ?2"
            " AND id NOT IN (SELECT id FROM stream WHERE id BETWEEN ?1 AND ?2)",
            (low, high),
        )

    def clear(self, low: int, high: int) -> None:
        """Rows low..high are gone: so is what is known of them, but for names and outcomes."""
        if self._db.sole and not self._db.traces:
            return
        self._db.execute("DELETE FROM revoked WHERE id BETWEEN ? AND ?", (low, high))
        self._db.execute("DELETE FROM progress WHERE id BETWEEN ? AND ?", (low, high))
        if self._db.sole:
            self._db.traces = bool(
                self._db.execute("SELECT EXISTS (SELECT 1 FROM revoked) OR EXISTS (SELECT 1 FROM progress)").fetchone()[
                    0
                ]
            )
