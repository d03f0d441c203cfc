"""How many of a limited key's messages may go now. Pure: engines keep a `Limiter` for each key, and ask it here.

A rate is a line in time, not a count. `full` is the moment at which nothing of what was handed out is left to be paid:
each message moves it on by what its cost takes at the rate. So what was late is not lost, and nothing has to be
counted, forgotten, or done at a certain moment. Over any stretch of T seconds at most `burst + rate * (T + LAG)` units
are handed out, and, while messages wait and somebody asks at least every `LAG` seconds, not less than
`rate * (T - LAG)`.

What has expired takes nothing, since its worker only discards it: else, where more comes than may go, for long, all
that goes would be what nobody wants any more. Whether it has is decided once, when it is let go, by the engine's clock.
A worker that looked at its own some milliseconds later would run what was not paid for, or discard what was.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.message import Limit

LAG = 0.05
"""Seconds by which the line may lag behind the clock, so that workers who ask a little late can catch up."""
GRAIN = 1e-6
"""Seconds: Unix times in floating point are no finer, and nobody is sent away for so short a time."""
GRACE = 1.0
"""Seconds after its expiry until which a worker starts what was let go before: clocks differ, and it may wait there."""


class Limiter(Struct, frozen=True):
    """What an engine keeps of one key: the newest parameters, and the time line. A key without one is as new."""

    rate: float | None = None
    burst: float = 1.0
    concurrency: int | None = None
    full: float = 0.0
    """Unix time at which a full burst is there again."""


class Admission(Struct, frozen=True):
    """The first `count` messages may go, after which the limiter is `after`. `again` is the Unix time at which the
    next of those that were asked for may; `None` if there is none, or if it waits until one that is leased comes
    back."""

    count: int
    after: Limiter
    again: float | None = None


def renewed(limiter: Limiter, limit: Limit, now: float) -> Limiter:
    """The limiter with the parameters of a newer message. What has been handed out before is still to be paid, at the
    new rate; but a lower one does not make that take longer than it did, or than a burst does. More than a burst is
    owed for dear calls, or seems to be when a clock was set back, and would hold up its key for hours. Within a burst
    no unit is lost, so that releases which name two rates by turns let no more go than the higher one does."""
    full = limiter.full
    if limit.rate is None or limiter.rate is None:
        full = 0.0
    elif limit.rate != limiter.rate and full > now:
        owed = full - now
        full = now + min(owed * limiter.rate / limit.rate, max(owed, limit.burst / limit.rate))
    return Limiter(limit.rate, limit.burst, limit.concurrency, full)


def admit(limiter: Limiter, costs: Sequence[float], leased: int, now: float) -> Admission:
    """Which of the messages that wait first may go, with these costs, while `leased` of this key are leased. Those
    behind one that may not go wait, too."""
    after = limiter
    for count, cost in enumerate(costs):
        moment = opens(after, cost, leased + count)
        if moment is None or moment > now + GRAIN:
            return Admission(count, after, moment)
        after = _paid(after, cost, now)
    return Admission(len(costs), after)


def cost_of(cost: float, expires: float | None, now: float) -> float:
    """What a message takes that goes now, of which a live one takes `cost`."""
    return 0.0 if expires is not None and expires <= now else cost


def has_expired(expires: float, let_go: float | None, now: float) -> bool:
    """Whether a worker discards a message: `let_go` is when its limit let it go (`None`: it has none), by the clock of
    the engine, `now` is by the worker's."""
    return expires <= (now if let_go is None else max(let_go, now - GRACE))


def opens(limiter: Limiter, cost: float, leased: int) -> float | None:
    """The Unix time from which a message of this cost may go; `None` if it must wait until one that is leased comes
    back."""
    if limiter.concurrency is not None and leased >= limiter.concurrency:
        return None
    if limiter.rate is None or not cost:
        return 0.0
    return limiter.full - max(0.0, limiter.burst - cost) / limiter.rate


def is_spent(limiter: Limiter, leased: int, now: float) -> bool:
    """Whether it says no more than a new one would: it can be forgotten when no message of its key is left."""
    return not leased and limiter.full <= now - LAG


def _paid(limiter: Limiter, cost: float, now: float) -> Limiter:
    if limiter.rate is None or not cost:
        return limiter
    full = max(limiter.full, now - LAG) + cost / limiter.rate
    return Limiter(limiter.rate, limiter.burst, limiter.concurrency, full)
