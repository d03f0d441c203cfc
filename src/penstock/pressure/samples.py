"""How long tasks ran: exponentially weighted sums and a histogram for each queue and task. Pure.

All are sums that fade together, so that a mean is a weighted one (EWMA) whose weights halve every `HALF_LIFE` seconds
of work, and so that samples of many processes are merged by adding them. They fade only while new ones come: what is
idle stays as it was known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isfinite, log2, sqrt

import msgspec
from msgspec import Struct
from msgspec.structs import replace

HALF_LIFE = 2.0
"""Seconds after which a sample counts half: a task that becomes slow must be known before its queue is too long."""
STEADY = 32.0
"""Samples of one task after which one of them counts half in its histogram, where fewer than that come in `HALF_LIFE`:
else there would never be enough of a long task to tell what is usual of it."""
BUSY_HALF_LIFE = 5.0
"""The same of the threads that a queue takes: long tasks are noted seldom, and as one."""
FIRST, BUCKETS = 1e-5, 48
"""The upper bound of the first bucket in seconds. Each next one is the square root of two times as large; the last has
all above 80 seconds."""
MOST = 64
"""Names of tasks that are kept apart; those that come later are one, without a name, for each queue."""
LONGEST = 1e18
"""What no sum of ours is above."""
_OTHERS = ""

Key = tuple[str, str]
"""A queue and a task."""
Note = tuple[str, str, float, float, float, float]
"""Of a run: queue, task, seconds, how many runs it stands for, the seconds of those that were settling and reserving,
and since when it could run, in Unix time; 0: unknown."""


def bucket(seconds: float) -> int:
    return 0 if seconds <= FIRST else min(BUCKETS - 1, int(2.0 * log2(seconds / FIRST)) + 1)


def upper(number: int) -> float:
    """The bound of a bucket in seconds."""
    return float(FIRST * 2.0 ** (number / 2.0))


class Times(Struct, array_like=True):
    """Of one task: `count`, `seconds` and their squares as they have faded, and the count by bucket, which fades more
    slowly where samples are few."""

    count: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    buckets: dict[int, float] = {}
    longest: float = 0.0
    """Of the samples that were ever added."""
    own_count: float = 0.0
    own_seconds: float = 0.0
    own_squares: float = 0.0
    """The same of what the tasks took themselves, without settling and reserving. Workers of an earlier release tell
    none of it."""
    steady_seconds: float = 0.0
    """Of the samples in the buckets. Workers of an earlier release do not tell it."""

    def add(self, seconds: float, weight: float = 1.0, overhead: float = 0.0) -> None:
        """`overhead` is the part of `seconds` that is not the task's own."""
        self.count += weight
        self.seconds += seconds * weight
        self.squares += seconds * seconds * weight
        self.longest = max(self.longest, seconds)
        own = max(0.0, seconds - overhead)
        self.own_count += weight
        self.own_seconds += own * weight
        self.own_squares += own * own * weight
        self.steady_seconds += seconds * weight
        number = bucket(seconds)
        self.buckets[number] = self.buckets.get(number, 0.0) + weight

    def merge(self, other: Times) -> None:
        self.count += other.count
        self.seconds += other.seconds
        self.squares += other.squares
        self.longest = max(self.longest, other.longest)
        self.own_count += other.own_count
        self.own_seconds += other.own_seconds
        self.own_squares += other.own_squares
        self.steady_seconds += other.steady_seconds
        for number, count in other.buckets.items():
            self.buckets[number] = self.buckets.get(number, 0.0) + count

    def fade(self, factor: float) -> None:
        """All but the buckets."""
        self.count *= factor
        self.seconds *= factor
        self.squares *= factor
        self.own_count *= factor
        self.own_seconds *= factor
        self.own_squares *= factor

    def fade_steady(self, factor: float) -> None:
        self.steady_seconds *= factor
        self.buckets = {number: count * factor for number, count in self.buckets.items() if count * factor > 1e-6}

    @property
    def steady_count(self) -> float:
        """Samples in the buckets, as they have faded."""
        return sum(self.buckets.values())

    @property
    def steady_mean(self) -> float | None:
        return self.steady_seconds / self.steady_count if self.steady_seconds > 0 and self.buckets else None

    def as_now(self) -> Times:
        """With buckets for as many as `count`: beside other tasks it counts for no more than it runs now."""
        factor = self.count / self.steady_count if self.buckets else 0.0
        steady = {number: count * factor for number, count in self.buckets.items()}
        return replace(self, buckets=steady, steady_seconds=self.steady_seconds * factor)

    @property
    def mean(self) -> float | None:
        return self.seconds / self.count if self.count > 0 else None

    @property
    def own(self) -> tuple[float, float] | None:
        """The mean of what the tasks took themselves, and the standard deviation."""
        if self.own_count <= 0:
            return None
        mean = self.own_seconds / self.own_count
        return mean, sqrt(max(0.0, self.own_squares / self.own_count - mean * mean))

    @property
    def variation(self) -> float:
        """The standard deviation as a part of the mean."""
        mean = self.mean
        return sqrt(max(0.0, self.squares / self.count / mean**2 - 1.0)) if mean else 0.0

    def quantile(self, part: float) -> float | None:
        """Where that part of them is reached, within a bucket as if it were evenly filled; never above the longest."""
        wanted, seen = part * sum(self.buckets.values()), 0.0
        for number, count in sorted(self.buckets.items()):
            if seen + count >= wanted:
                lower = upper(number - 1) if number else 0.0
                return min(lower + (upper(number) - lower) * (wanted - seen) / count, self.longest)
            seen += count
        return self.longest if self.buckets else None

    def sane(self) -> bool:
        """Whether it can have been measured: what others wrote is not believed blindly."""
        own = (self.own_count, self.own_seconds, self.own_squares, self.steady_seconds)
        numbers = (self.count, self.seconds, self.squares, self.longest, *own, *self.buckets.values())
        return all(isfinite(one) and 0 <= one <= LONGEST for one in numbers) and all(
            0 <= number < BUCKETS for number in self.buckets
        )


class Samples(Struct, array_like=True):
    """Of a process, or of many. `busy`: threads that each queue took, on average of the last seconds. `heads`: since
    when could run (Unix time) what was at the head of each queue when a task ended, the latest that is known: the time
    since which the one that ended could, and that for which it ran. Workers of an earlier release tell none."""

    entries: list[tuple[str, str, Times]] = []
    busy: dict[str, float] = {}
    heads: dict[str, float] = {}

    def __iter__(self) -> Iterator[tuple[Key, Times]]:
        return (((queue, task), times) for queue, task, times in self.entries)

    def of_queue(self, queue: str | None) -> Times:
        """All tasks of a queue together, each with the share that it has now; `None`: of all queues."""
        found = Times()
        for (name, _), times in self:
            if queue in (None, name):
                found.merge(times.as_now())
        return found

    def of_tasks(self, queue: str | None) -> dict[str, Times]:
        """By task, in that queue or in whichever."""
        found: dict[str, Times] = {}
        for (name, task), times in self:
            if queue in (None, name):
                found.setdefault(task, Times()).merge(times)
        return found


def merged(many: Iterable[Samples], before: Samples | None = None) -> Samples:
    """All of them; tasks of `before` that none of them knows are kept as they were."""
    found: dict[Key, Times] = {}
    busy: dict[str, float] = {}
    heads = dict(before.heads) if before is not None else {}
    for samples in many:
        for key, times in samples:
            found.setdefault(_kept(key, found), Times()).merge(times)
        for queue, threads in samples.busy.items():
            busy[queue] = busy.get(queue, 0.0) + threads
        for queue, since in samples.heads.items():
            heads[queue] = max(since, heads.get(queue, 0.0))
    for key, times in before or ():
        if key not in found and len(found) < MOST:
            found[key] = times
    return Samples([(queue, task, times) for (queue, task), times in found.items()], busy, heads)


class Window:
    """The samples of this process."""

    def __init__(self) -> None:
        self._times: dict[Key, Times] = {}
        self._busy: dict[str, float] = {}
        self._heads: dict[str, float] = {}

    def pass_on(self, fresh: Iterable[Note], elapsed: float) -> None:
        """`fresh` are notes of the last `elapsed` seconds."""
        if elapsed <= 0:
            return
        factor, busy = 0.5 ** (elapsed / HALF_LIFE), 0.5 ** (elapsed / BUSY_HALF_LIFE)
        spent: dict[str, float] = {}
        weights: dict[Key, float] = {}
        fresh = list(fresh)
        if fresh:
            for times in self._times.values():
                times.fade(factor)
        for queue, task, _, weight, _, _ in fresh:
            key = _kept((queue, task), self._times)
            self._times.setdefault(key, Times())
            weights[key] = weights.get(key, 0.0) + weight
        for key, weight in weights.items():
            self._times[key].fade_steady(max(factor, 0.5 ** (weight / STEADY)))
        for queue, task, seconds, weight, overhead, since in fresh:
            self._times[_kept((queue, task), self._times)].add(max(0.0, seconds), weight, overhead)
            spent[queue] = spent.get(queue, 0.0) + max(0.0, seconds) * weight
            if since:
                self._heads[queue] = max(since + seconds - overhead, self._heads.get(queue, 0.0))
        for queue in self._busy.keys() | spent.keys():
            faded = self._busy.get(queue, 0.0) * busy + spent.get(queue, 0.0) / elapsed * (1.0 - busy)
            self._busy[queue] = faded
        self._busy = {queue: threads for queue, threads in self._busy.items() if threads > 1e-4}

    @property
    def samples(self) -> Samples:
        entries = [(queue, task, times) for (queue, task), times in self._times.items()]
        return Samples(entries, dict(self._busy), dict(self._heads))


def _kept(key: Key, known: Mapping[Key, object]) -> Key:
    """Under which key it is kept: there is a bound, whatever names come."""
    if key in known or len(known) < MOST:
        return key
    others = (key[0], _OTHERS)
    return others if others in known or len(known) < 2 * MOST else (_OTHERS, _OTHERS)


def packed(samples: Samples) -> bytes:
    return msgspec.msgpack.encode(samples)


def unpacked(data: bytes) -> Samples | None:
    """`None` for what is damaged, or cannot have been measured."""
    try:
        samples = msgspec.msgpack.decode(data, type=Samples)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
    return samples if is_sane(samples) else None


def is_sane(samples: Samples) -> bool:
    return (
        len(samples.entries) <= 3 * MOST
        and all(times.sane() for _, times in samples)
        and all(isfinite(one) and 0 <= one <= LONGEST for one in (*samples.busy.values(), *samples.heads.values()))
    )
