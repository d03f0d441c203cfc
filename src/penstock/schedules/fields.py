"""The fields of a crontab: Celery's notation, and the numbers that it stands for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType

from msgspec import Struct

from penstock.errors import ConfigError

Given = int | str | Collection[int]
_PART = re.compile(r"(\*|[a-z]+|\d{1,4})(?:-([a-z]+|\d{1,4}))?(?:/(\d{1,4}))?", re.ASCII)
LONGEST = 500
"""Characters of one field."""
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip


def _names(words: tuple[str, ...], first: int) -> Mapping[str, int]:
    numbered = [(word, number) for number, word in enumerate(words, first)]
    return MappingProxyType({**dict(numbered), **{word[:3]: number for word, number in numbered}})


class Kind(Struct, frozen=True):
    """A field: its name in errors, its numbers, and the words that stand for some of them."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = {}


MINUTE = Kind("minute", 0, 59)
HOUR = Kind("hour", 0, 23)
DAY_OF_MONTH = Kind("day_of_month", 1, 31)
MONTH = Kind("month_of_year", 1, 12, _names(_MONTHS, 1))
DAY_OF_WEEK = Kind("day_of_week", 0, 6, _names(_DAYS, 0))
"""Sunday is 0, and 7."""


def canonical(kind: Kind, given: Given) -> str:
    """The field as text. Raises `ConfigError` for what it cannot mean."""
    if isinstance(given, str):
        text = given.strip().lower()
    elif type(given) is int:
        text = str(given)
    elif isinstance(given, Collection) and given and all(type(one) is int for one in given):
        text = ",".join(map(str, given))
    else:
        raise ConfigError(f"crontab: {kind.name} must be a number, text such as '*/15', or numbers, not {given!r}")
    if len(text) > LONGEST:
        raise ConfigError(f"crontab: {kind.name} is over {LONGEST} characters")
    numbers(kind, text)
    return text


def numbers(kind: Kind, text: str) -> tuple[int, ...]:
    """The numbers of a field, in order. Raises `ConfigError`."""
    return _numbers(kind.name, kind.low, kind.high, text)


@lru_cache(maxsize=4096)
def _numbers(name: str, low: int, high: int, text: str) -> tuple[int, ...]:
    """Kept, since thousands of schedules share few fields."""
    kind = next(one for one in (MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK) if one.name == name)
    found: set[int] = set()
    for part in text.split(","):
        found.update(_part(kind, part.strip(), text))
    return tuple(sorted(found))


def _part(kind: Kind, part: str, text: str) -> list[int]:
    match = _PART.fullmatch(part)
    if match is None:
        raise ConfigError(f"crontab: {kind.name}={text!r}: {part!r} is none of 5, 1-5, *, */10, 1-30/5, nor a list")
    first, last, every = match.groups()
    step = int(every) if every is not None else 1
    if step < 1:
        raise ConfigError(f"crontab: {kind.name}={text!r}: a step must be at least 1")
    if first == "*":
        if last is not None:
            raise ConfigError(f"crontab: {kind.name}={text!r}: * has no end")
        return list(range(kind.low, kind.high + 1, step))
    begin = _number(kind, first, text)
    if last is None:
        # As in cron: 5/15 begins at 5 and goes on to the end.
        return list(range(begin, kind.high + 1, step)) if every is not None else [begin]
    end = _number(kind, last, text)
    size = kind.high - kind.low + 1
    # Friday to Monday, 22 to 3: round the end.
    span = (end - begin) % size if not (begin == 0 and kind is DAY_OF_WEEK and last == "7") else size - 1
    return [kind.low + (begin - kind.low + at) % size for at in range(0, span + 1, step)]


def _number(kind: Kind, word: str, text: str) -> int:
    number = int(word) if word.isdigit() else kind.names.get(word)
    if kind is DAY_OF_WEEK and number == 7:
        number = 0
    if number is None or not kind.low <= number <= kind.high:
        known = ", or a name such as " + list(kind.names)[1] if kind.names else ""
        raise ConfigError(
            f"crontab: {kind.name}={text!r}: {word!r} is not a number from {kind.low} to {kind.high}{known}"
        )
    return number
