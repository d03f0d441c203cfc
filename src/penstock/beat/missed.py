"""Which ticks of a line are to be published, of those that have come due: one as a rule, more after a pause. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from penstock.beat.line import MOST_CAUGHT_UP, Line, Tick, next_of
from penstock.schedules import Schedule


class Due(Struct, frozen=True):
    """`ticks` to publish, in order; whether others were `skipped`, as the line's policy has it; and the next that will
    come due."""

    ticks: list[Tick]
    skipped: bool
    upcoming: Tick | None


def first_after(line: Line, after: float) -> Tick | None:
    """The first tick that fires after `after`."""
    if not line.jitter:  # nearly all of 100,000
        moment = next_of(line.schedule, after)
        return None if moment is None else Tick(line, moment, moment)
    return next(_from(line, after), None)


def due(first: Tick, now: float) -> Due:
    """Of the ticks from `first` on, which has fired: those up to `now` by the line's policy, and the one after them."""
    line = first.line
    second = _following(first)
    if second is None or second.fires > now:  # the rule: nothing was missed
        on_time = now - first.fires <= line.bound
        return Due([first] if on_time else [], not on_time, second)
    if line.catch_up == "all":
        return _every(first, now)
    newest = _newest(first, now)
    wanted = now - newest.fires <= line.bound
    return Due([newest] if wanted else [], True, _following(newest))


def _every(first: Tick, now: float) -> Due:
    line, kept = first.line, deque[Tick](maxlen=MOST_CAUGHT_UP)
    earliest = now - line.bound
    seen, upcoming = 0, None
    for tick in _from(line, earliest) if first.fires < earliest else _onwards(first):
        if tick.fires > now:
            upcoming = tick
            break
        kept.append(tick)
        seen += 1
    skipped = seen > len(kept) or not kept or kept[0].moment != first.moment
    return Due(list(kept), skipped, upcoming)


def _from(line: Line, after: float) -> Iterator[Tick]:
    """The ticks that fire after `after`, in order."""
    moment = next_of(line.schedule, after - line.jitter)
    if moment is not None and moment <= after:
        moment = newest(line.schedule, moment, after)  # of those whose moment has passed, only it may fire yet
    if moment is not None:
        yield from (tick for tick in _onwards(_tick(line, moment)) if tick.fires > after)


def _onwards(tick: Tick | None) -> Iterator[Tick]:
    while tick is not None:
        yield tick
        tick = _following(tick)


def _following(tick: Tick) -> Tick | None:
    return None if tick.following is None else _tick(tick.line, tick.following)


def _tick(line: Line, moment: float) -> Tick:
    return Tick(line, moment, line.fires(moment))


def _newest(first: Tick, now: float) -> Tick:
    """The newest that fires up to `now`, as `first` does."""
    line = first.line
    tick = _tick(line, newest(line.schedule, first.moment, now))
    if tick.fires > now:  # its jitter is not over; that of the one before is
        tick = _tick(line, newest(line.schedule, first.moment, tick.moment, strictly=True))
    return tick


def newest(schedule: Schedule, low: float, high: float, *, strictly: bool = False) -> float:
    """The newest moment of a schedule up to `high` (or before it), where `low` is one of them. By halves: a schedule
    of seconds may have slept for months."""
    while True:
        following = next_of(schedule, low)
        if following is None or following > high or (strictly and following >= high):
            return low
        middle = following + (high - following) / 2
        found = next_of(schedule, middle)
        if found is not None and (found < high or (found == high and not strictly)):
            low = found
        elif middle >= high:
            low = following
        else:
            low, high, strictly = following, middle, False
