"""The law: queue length = max latency / (transaction time / number of threads). Pure.

A task that is let in as number `length`, those that run counted, is done after `length` × time ÷ threads. That is the
mean: at overload, when the queue is always full, half of all would be later. So what is taken off is what the sum of so
many times varies, and what the slow ones take longer themselves: of what is accepted, 99 % are to be done in time.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, sqrt

import msgspec
from msgspec import Struct

from penstock.pressure.samples import Times
from penstock.queue import Queue, QueueInfo

HEADROOM = 0.8
"""The part of their time that threads are planned to be busy: above, the wait of what comes unevenly grows fast."""
DEVIATIONS = 2.33
"""A sum of many times is above its mean by more standard deviations once in a hundred."""
AIM = 0.95
"""Of the latency, what a bound aims at: the rest is for what samples do not see, such as the last second's change."""
SOFT_AIM = 0.9
"""The same where the engine does not count all that is there, and publishers learn of a bound a second later."""
CLOSED = 1
"""The bound of a queue that lets nothing in while something is in it."""


class Threads(Struct, frozen=True):
    """What one live process runs. `busy`: threads that each queue took lately, on average."""

    slots: int
    queues: tuple[str, ...]
    busy: dict[str, float]

    def of(self, queue: str) -> float:
        """The threads that `queue` has, or could have now: those that the other queues leave, and at least its fair
        share, since queues are served in turn."""
        if queue not in self.queues:
            return 0.0
        others = sum(taken for name, taken in self.busy.items() if name != queue)
        return max(self.slots - others, self.slots / len(self.queues))


class Rate(Struct, frozen=True):
    """How fast a queue is worked off at most: `per_second` tasks by `threads` threads, known since `at` (Unix time).
    `variation` of the times is a part of their mean; `tail`: seconds that one in a hundred takes beyond it."""

    per_second: float
    threads: float
    at: float = 0.0
    variation: float = 0.0
    tail: float = 0.0


def rate(times: Times, threads: float, now: float) -> Rate | None:
    """`None` without samples, or without workers."""
    mean = times.mean
    if not mean or threads <= 0:
        return None
    tail = max(0.0, (times.quantile(0.99) or 0.0) - mean)
    return Rate(threads / mean, threads, now, times.variation, tail)


def lasting(last: Rate | None, now: float, grace: float) -> Rate | None:
    """What was known last, for `grace` seconds: a deploy, in which no worker lives, must not change anything."""
    return last if last is not None and now - last.at <= grace else None


def scaled(last: Rate, threads: float) -> Rate:
    """The same tasks with other threads; as it was where there are none now."""
    if threads <= 0 or last.threads <= 0:
        return last
    return msgspec.structs.replace(last, per_second=last.per_second * threads / last.threads, threads=threads)


def length(max_latency: float, known: Rate) -> int:
    """Tasks, those that run counted: at least one for each thread, or none would have work at once."""
    # Some tasks that are longer than the latency itself must not close the queue for all others.
    left = max(max_latency - known.tail, max_latency / 2)
    varied = DEVIATIONS * known.variation
    # The length n of which n + varied × √n, the 99th percentile, is done in time.
    root = (sqrt(varied * varied + 4 * left * known.per_second) - varied) / 2
    return max(ceil(root * root - 1e-9), ceil(known.threads), 1)


def bound(queue: Queue, found: QueueInfo, known: Rate | None, running: float = 0.0) -> int:
    """The effective bound of a queue as it is found: never above what is declared. What is delayed waits of its own
    will and takes no room. `running` are those that the queue's engine does not count. Older than `max_age`: nothing
    new."""
    if queue.age is not None and found.oldest_age is not None and found.oldest_age > queue.age:
        return CLOSED
    if queue.latency is None or known is None:
        return queue.max_length
    aim = AIM if found.depth is not None else SOFT_AIM
    room = length(queue.latency * aim, known) + (found.delayed or 0) - round(running)
    return min(queue.max_length, max(1, room))


def differs(present: int, wanted: int) -> bool:
    """Whether a bound is worth a write: if it is higher by a twentieth, lower by less, since what is let in meanwhile
    would be late; or between few and fewer."""
    return wanted < present - present / 50 or wanted > present + wanted / 20


class Plan(Struct, frozen=True):
    """What a load needs. `threads` at `HEADROOM`; `fewest` would be busy all the time; `length` tasks are done in
    `latency` by them."""

    threads: int
    fewest: float
    length: int
    busy: float


def plan(latency: float, per_second: float, times: Times) -> Plan | None:
    """Threads and queue length for so many tasks a second; `None` without samples."""
    fewest = per_second * (times.mean or 0.0)
    threads = max(1, ceil(fewest / HEADROOM - 1e-9))
    known = rate(times, threads, 0.0)
    if known is None:
        return None
    return Plan(threads, fewest, length(latency, known), fewest / threads)


def threads_of(queue: str, live: Iterable[Threads]) -> float:
    """Across all processes."""
    return sum(one.of(queue) for one in live)
