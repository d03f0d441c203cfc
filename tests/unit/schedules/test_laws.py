"""What holds for every schedule: the next tick is after the moment, and the same from anywhere between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import crontab, schedule
from penstock.schedules import Schedule

ZONES = (
    "UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Chatham", "Antarctica/Troll", "America/St_Johns",
    "Pacific/Apia", "Africa/Casablanca", "Asia/Kathmandu",
)  # fmt: skip


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=1, max_size=4).map(lambda numbers: ",".join(map(str, numbers))),
    )


crontabs = st.builds(
    crontab,
    field(0, 59),
    field(0, 23),
    field(0, 6),
    st.one_of(st.just("*"), st.integers(1, 28).map(str)),
    st.one_of(st.just("*"), st.integers(1, 12).map(str)),
    st.sampled_from(ZONES),
)
intervals = st.builds(schedule, st.floats(0.1, 1e6), st.floats(-1e9, 2e9))
moments = st.floats(1_200_000_000, 2_000_000_000)


@given(st.one_of(crontabs, intervals), moments, st.floats(0, 1))
@settings(max_examples=300, deadline=None)
def test_the_first_after_the_moment_and_the_same_from_anywhere_between(
    plan: Schedule, moment: float, share: float
) -> None:
    tick = plan.next_after(moment)
    assert tick is not None
    assert tick > moment
    between = moment + share * (tick - moment)
    if between < tick:
        assert plan.next_after(between) == tick
    following = plan.next_after(tick)
    assert following is not None
    assert following > tick


@given(crontabs, st.integers(1_200_000_000, 2_000_000_000))
@settings(max_examples=60, deadline=None)
def test_against_a_walk_over_all_minutes(cron: crontab, moment: int) -> None:
    """Two days, minute by minute, of what clocks show; skipped times count where the gap ends."""
    start = moment - moment % 60
    expected = walked(cron, start, 2 * 24 * 60)
    found, tick = [], cron.next_after(start)
    while tick is not None and tick <= start + 2 * 86_400:
        found.append(tick)
        tick = cron.next_after(tick)
    assert found == expected


def walked(cron: crontab, start: int, minutes: int) -> list[float]:
    tz = ZoneInfo(cron.tz)
    fits = fitting(cron)
    found, seen = set(), set()
    # From a day before on, to know what was shown already.
    before = datetime.fromtimestamp(start - 86_400 - 60, tz).replace(tzinfo=None)
    for moment in range(start - 86_400, start + minutes * 60 + 60, 60):
        shown = datetime.fromtimestamp(moment, tz).replace(tzinfo=None)
        # What was skipped, if clocks went forward in this minute.
        times = [shown]
        while times[-1] - before > timedelta(minutes=1):
            times.append(times[-1] - timedelta(minutes=1))
        for time in times:
            if fits(time) and (time not in seen or len(fits.hours) == 24):  # type: ignore[attr-defined]  # set below
                found.add(float(moment))
            seen.add(time)
        before = shown
    return sorted(moment for moment in found if start < moment <= start + minutes * 60)


def fitting(cron: crontab):  # type: ignore[no-untyped-def]  # a function with an attribute
    def numbers(text: object, low: int, high: int) -> set[int]:
        found: set[int] = set()
        for part in str(text).split(","):
            head, _, step = part.partition("/")
            found.update(range(low, high + 1, int(step or 1)) if head == "*" else [int(head)])
        return found

    minute, hour = numbers(cron.minute, 0, 59), numbers(cron.hour, 0, 23)
    week, day = numbers(cron.day_of_week, 0, 6), numbers(cron.day_of_month, 1, 31)
    month = numbers(cron.month_of_year, 1, 12)

    def fits(at: datetime) -> bool:
        return (
            at.minute in minute
            and at.hour in hour
            and at.isoweekday() % 7 in week
            and at.day in day
            and at.month in month
        )

    fits.hours = hour  # type: ignore[attr-defined]  # read by the walk
    return fits


def test_ticks_of_an_interval_do_not_depend_on_who_asks_when() -> None:
    plan = schedule(timedelta(minutes=10))
    noon = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
    assert plan.next_after(noon - 1) == noon
    assert plan.next_after(noon) == noon + 600
