"""Credit by what a worker can start: one that is four times as fast gets about four times the tasks."""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from bench.broker.site import environment, queue_file, site
from bench.measure import Goal, Measure, Reading, Result
from bench.place import SLEEP, Counters, Place, call, workers

FAST, SLOW = 0.002, 0.008


def fill(count: int) -> None:
    from bench import tasks

    tasks.work.delay_many(() for _ in range(count))
    tasks.app.close()


def _share(place: Place) -> Iterator[Result]:
    count = place.size(20_000, 2_000)

    def once() -> float:
        with site(place, "process") as server:
            env = environment(server, "process")
            call("bench.broker.share", "fill", env, count=count)
            solo = ("--pool", "solo")
            with (
                workers({**env, SLEEP: str(FAST)}, *solo) as fast,
                workers({**env, SLEEP: str(SLOW)}, *solo) as slow,
            ):
                counters = Counters(queue_file(server))
                counters.settled_reaches(count // 10, [*fast, *slow])
                counters.settled_reaches(count * 9 // 10, [*fast, *slow])
                counters.close()
                return _ratio(queue_file(server))

    runs = place.repeat(3, once)
    readings = tuple(Reading(value, foreign) for value, foreign in runs)
    # A share of 4 is what is wanted: its distance is what counts.
    yield Result("broker/share", "tasks of a worker four times as fast ÷ the other's", "×", readings, None, "process")
    apart = tuple(Reading(abs(one.value - 4), one.foreign) for one in readings)
    yield Result("broker/share/apart", "the same, away from 4", "×", apart, Goal(0.5, 1, "less"), "process")


def _ratio(path: object) -> float:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    rows = connection.execute("SELECT sum(hi - lo + 1) FROM result GROUP BY worker ORDER BY 1").fetchall()
    connection.close()
    few, many = (int(row[0]) for row in rows)
    return many / few


MEASURES = (Measure("share", "workers of different speed", _share),)
