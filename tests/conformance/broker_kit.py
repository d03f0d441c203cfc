"""The suite on a real `penstock broker`: real time, names of its own in a broker that all checks share."""

from __future__ import annotations

from pathlib import Path

import apsw

from penstock.broker import Key
from penstock.engine import Engine
from penstock.engines.server import open_engine
from penstock.testing.conformance import Kit

UNIT = 0.3
"""Seconds that count as a while here."""


class BrokerKit(Kit):
    def __init__(self, url: str, data: Path, *, blocking: bool) -> None:
        self._url, self._data = url, data
        super().__init__(open_engine(url), blocking=blocking, unit=UNIT)

    def open_second(self) -> Engine:
        return open_engine(self._url)

    async def corrupt(self, key: Key) -> bool:
        connection = apsw.Connection(str(self._data / "queue.db"))
        connection.set_busy_timeout(5_000)
        (size,) = connection.execute("SELECT length(body) FROM task WHERE id = ?", (key,)).fetchall()[0]
        connection.execute("UPDATE task SET body = ? WHERE id = ?", (b"\xc1" * size, key))
        connection.close()
        return True
