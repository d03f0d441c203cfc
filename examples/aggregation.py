"""Periodic aggregation: readings come in at any time, and once a minute what is new is summed up.

    penstock -A aggregation worker -B              runs the tasks, and publishes the periodic one
    python aggregation.py kitchen 21.5             a reading
    python aggregation.py                          the sums

`aggregate` may run late, twice, or after a day's pause: it takes what is not summed up yet, whatever that is, in one
transaction. So it does not matter which tick it runs for, and missed ones need not be caught up one by one.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from penstock import Penstock

DATABASE = Path(__file__).parent / "readings.db"
EVERY = float(os.environ.get("AGGREGATE_EVERY", "60"))
SCHEMA = """
CREATE TABLE IF NOT EXISTS reading (id INTEGER PRIMARY KEY, sensor TEXT, minute INTEGER, value REAL);
CREATE TABLE IF NOT EXISTS summary (
    sensor TEXT, minute INTEGER, count INTEGER, total REAL, lowest REAL, highest REAL, PRIMARY KEY (sensor, minute)
);
"""

app = Penstock("aggregation")


@app.task
def record(sensor: str, value: float, at: float) -> None:
    """Keep one reading; `at` is Unix time."""
    with closing(connect()) as database, database:
        database.execute(
            "INSERT INTO reading (sensor, minute, value) VALUES (?, ?, ?)", (sensor, int(at) // 60 * 60, value)
        )


@app.task(unique=True)
def aggregate() -> int:
    """Sum up what came since the last time, by sensor and minute. Returns how many readings that were."""
    with closing(connect()) as database, database:
        database.execute("BEGIN IMMEDIATE")
        (newest,) = database.execute("SELECT coalesce(max(id), 0) FROM reading").fetchone()
        database.execute(
            """
            INSERT INTO summary
            SELECT sensor, minute, count(*), sum(value), min(value), max(value)
            FROM reading WHERE id <= ? GROUP BY sensor, minute
            ON CONFLICT (sensor, minute) DO UPDATE SET
                count = count + excluded.count, total = total + excluded.total,
                lowest = min(lowest, excluded.lowest), highest = max(highest, excluded.highest)
            """,
            (newest,),
        )
        return database.execute("DELETE FROM reading WHERE id <= ?", (newest,)).rowcount


app.add_periodic_task(EVERY, aggregate.s(), name="aggregate", expires=10 * EVERY)


def connect() -> sqlite3.Connection:
    database = sqlite3.connect(DATABASE, timeout=10)
    database.executescript(SCHEMA)
    return database


def main() -> None:
    if len(sys.argv) == 3:
        record.delay(sys.argv[1], float(sys.argv[2]), time.time())
        return
    with closing(connect()) as database:
        for sensor, minute, count, total, lowest, highest in database.execute("SELECT * FROM summary ORDER BY 1, 2"):
            clock = time.strftime("%H:%M", time.localtime(minute))
            print(f"{sensor} {clock}: {count} readings, {lowest:g} to {highest:g}, mean {total / count:g}")


if __name__ == "__main__":
    main()
