"""What is read of a queue and its workers, for the alarms. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.pressure.alarms import Reading
from penstock.pressure.reports import Report
from penstock.pressure.samples import Samples, Times
from penstock.queue import Queue, QueueInfo

if TYPE_CHECKING:
    from penstock.config import Config

HYSTERESIS = 5 / 7
"""The part of its limit below which an alarm is over: 50 % for 70 %."""
ENOUGH = 20.0
"""Samples, or looks at new ones, from which on times say something."""
RECENT = 30.0
"""Seconds for which times say something of now."""
LONGEST_STEP = 60.0
"""Seconds that one look at new samples counts for at most, when a task is rare."""
SHORTEST = 0.05
"""Seconds below which no task is too slow: what the machine does beside is as much."""
CALM = 0.1
"""The part of its bound up to which a queue of delayed tasks is not watched."""
REMEMBERED = 600.0
"""Seconds after which what was usual of a task counts half."""


class Limits(Struct, frozen=True):
    """From which values on it is warned of; `None`: never. `full` is a part of the bound, `age` and `stuck` are
    seconds, `times` how many times longer than usual, or than the others."""

    full: float | None
    age: float | None
    times: float | None
    stuck: float | None

    def of(self, queue: Queue) -> Limits:
        """What the queue says itself goes before the app's settings; what it promises goes before a default."""
        full = self.full if queue.warn_at is None else queue.warn_at
        promised = [one for one in (queue.latency, None if queue.age is None else queue.age * 0.7) if one is not None]
        age = queue.warned_age or min(promised, default=self.age)
        return Limits(full, age, self.times, self.stuck)


def limits_of(conf: Config) -> Limits:
    """Those of the app's settings. Raises `ConfigError`."""
    for name, least, most, rule in (
        ("pressure_warn_at", 0.0, 1.0, "a part of the bound, above 0 and up to 1"),
        ("pressure_warn_age", 0.0, 1e9, "seconds above 0"),
        ("pressure_warn_times", 1.0, 1e9, "above 1"),
        ("pressure_warn_stuck", 0.0, 1e9, "seconds above 0"),
    ):
        value = getattr(conf, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and least < value <= most):
            raise ConfigError(f"{name} must be {rule}, or None for no alarm, not {value!r}")
    return Limits(conf.pressure_warn_at, conf.pressure_warn_age, conf.pressure_warn_times, conf.pressure_warn_stuck)


class Range(Struct):
    """What is known of how long a task takes: its usual 99th percentile in seconds, from so many looks at new samples.
    `counted` are the steady seconds at the last of them, at the monotonic time `changed`."""

    seconds: float
    looks: int
    counted: float
    changed: float


class Usual:
    """How long tasks usually take: their 99th percentile, as it was over the last minutes."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Range] = {}

    def of(self, queue: str, task: str) -> float | None:
        found = self._known.get((queue, task))
        return found.seconds if found is not None and found.looks >= ENOUGH else None

    def recent(self, queue: str, task: str, now: float) -> bool:
        """Some of it has ended lately: else what is known of it is no news."""
        found = self._known.get((queue, task))
        return found is not None and now - found.changed <= RECENT

    def learn(self, samples: Samples, limit: float, now: float) -> None:
        """`now` is monotonic. What is out of its range by `limit` times is learnt ten times as slowly: it is what
        alarms are for, unless it stays so."""
        fresh = {}
        for key, times in samples:
            p99 = times.quantile(0.99)
            if p99 is None:
                continue
            known = self._known.get(key)
            if known is None:
                known = Range(p99, int(min(times.steady_count, ENOUGH)), times.steady_seconds, now)
            elif times.steady_seconds != known.counted:
                first = 1.0 / known.looks if 0 < known.looks < ENOUGH else 0.0
                rest = REMEMBERED * (10.0 if p99 > known.seconds * limit else 1.0)
                passed = min(max(0.0, now - known.changed), LONGEST_STEP)
                known.seconds += (p99 - known.seconds) * max(first, 1.0 - 0.5 ** (passed / rest))
                known.looks, known.counted, known.changed = known.looks + 1, times.steady_seconds, now
            fresh[key] = known
        self._known = fresh


def of_queue(queue: str, limits: Limits, info: QueueInfo) -> Iterator[Reading]:
    """How full, and how old. A paused queue may be as old as it likes."""
    full = fullness(info)
    if limits.full is not None and full is not None:
        yield Reading("full", queue, "", full, limits.full, limits.full * HYSTERESIS)
    if limits.age is not None and info.oldest_age is not None and info.ready and not info.paused:
        yield Reading("age", queue, "", info.oldest_age, limits.age, limits.age * HYSTERESIS)


def there(info: QueueInfo) -> int | None:
    """The tasks that count for its bound, as far as they are known: all, or those that are ready."""
    return info.ready if info.depth is None else info.depth


def fullness(info: QueueInfo) -> float | None:
    """The larger part of its two bounds, 1 is full; `None`: unknown."""
    parts = [
        part / bound
        for part, bound in ((there(info), info.max_length), (info.bytes, info.max_bytes))
        if part is not None and bound > 0
    ]
    return max(parts, default=None)


def calm(info: QueueInfo) -> bool:
    """Nothing waits to run, and nothing runs: there is nothing to warn of, as far as it is known."""
    if info.ready is None:
        return info.depth == 0
    return info.ready == (info.leased or 0) == 0 and (fullness(info) or 0.0) < CALM


def of_tasks(
    queue: str,
    limits: Limits,
    live: Sequence[Report],
    samples: Samples,
    usual: Usual,
    expected: Callable[[str], float | None],
    now: float,
) -> Iterator[Reading]:
    """Tasks out of their range: what has ended lately, and what runs now. `expected` is what is declared of a task, in
    seconds; `now` is monotonic."""

    def bound(task: str) -> float | None:
        declared, known = expected(task), usual.of(queue, task)
        if declared is not None:
            return declared
        return None if limits.times is None or known is None else max(known * limits.times, SHORTEST)

    longest: dict[str, float] = {}
    for (name, task), times in samples:
        p99 = times.quantile(0.99)
        told = name == queue and task and usual.recent(queue, task, now)
        if told and p99 is not None and times.steady_count >= ENOUGH:
            longest[task] = p99
    for run in (run for report in live for standing in report.standing for run in standing.runs):
        if run.queue == queue and run.task:
            longest[run.task] = max(longest.get(run.task, 0.0), run.seconds)
    for task, seconds in longest.items():
        limit = bound(task)
        if limit is not None:
            yield Reading("run_time", queue, task, seconds, limit, limit * HYSTERESIS)


def of_workers(queue: str, limits: Limits, live: Sequence[Report], usual: Usual) -> Iterator[Reading]:
    """Workers that are slow beside their peers, or do not get on."""
    if limits.times is not None:
        own = {report.who: report.samples.of_tasks(queue) for report in live if report.name}
        for name, tasks in own.items():
            others = [found for other, found in own.items() if other != name]
            slower = slowness(tasks, others)
            if slower is not None:
                yield Reading("slow_worker", queue, name, slower, limits.times, max(1.0, limits.times * HYSTERESIS))
    if limits.stuck is None:
        return
    for standing in (one for report in live for one in report.standing):
        runs = [run for run in standing.runs if run.queue == queue]
        if runs:
            allowed = max(run.limit or (usual.of(queue, run.task) or 0.0) * (limits.times or 1.0) for run in runs)
            limit = allowed + limits.stuck
            yield Reading("stuck_worker", queue, standing.worker, standing.still, limit, limit * HYSTERESIS)


def slowness(own: Mapping[str, Times], others: Sequence[Mapping[str, Times]]) -> float | None:
    """How many times as long the same tasks take here as they do elsewhere; `None` where too little is known."""
    here = there = 0.0
    for task, times in own.items():
        peers = [found[task] for found in others if task in found]
        own_count, count = times.steady_count, sum(one.steady_count for one in peers)
        mean, usual = times.steady_mean, sum(one.steady_seconds for one in peers) / (count or 1.0)
        if own_count < ENOUGH or count < ENOUGH or mean is None:
            continue
        if mean > usual and mean - usual < SHORTEST / 10:
            mean = usual  # as good as the same
        here += times.count * mean
        there += times.count * usual
    return here / there if there > 0 else None
