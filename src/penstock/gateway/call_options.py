"""The options of a call over HTTP: few of those that Python callers have, each bounded. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

from penstock.errors import ConfigError, UnknownQueue
from penstock.gateway.problems import Refused
from penstock.gateway.scopes import Scopes
from penstock.gateway.settings import GatewaySettings
from penstock.queue import check_name

Moment = Annotated[datetime, Meta(tz=True)] | float
"""RFC 3339 with a timezone, or Unix time."""
_ID = re.compile(r"[0-9A-Za-z_-]{20,100}")


class CallOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`countdown` in seconds from now, `eta` a moment; `expires` is seconds from now, or a moment as text."""

    countdown: float | None = None
    eta: Moment | None = None
    expires: Moment | None = None
    priority: int | None = None
    queue: str | None = None
    task_id: str | None = None


NO_OPTIONS = CallOptions()


class Rules(Struct, frozen=True):
    """What holds for one request. `address` is the app's way from a queue's name to the one in a message; it raises
    `UnknownQueue` or `ConfigError`. `repeated`: it has an Idempotency-Key."""

    settings: GatewaySettings
    scopes: Scopes
    now: float
    address: Callable[[str], str]
    repeated: bool


def options_of(given: CallOptions, rules: Rules, place: str = "") -> dict[str, Any]:
    """As `apply_async` takes them. `place` comes before the names of fields. Raises `Refused`: 403 for a queue that the
    caller may not choose, else 422 that names each wrong one."""
    if given is NO_OPTIONS:
        return {}
    if given.queue is not None and not rules.scopes.may_choose(given.queue):
        raise Refused(403, "forbidden", f"no scope of this token covers queue:{given.queue[:200]}")
    wrong = [(f"{place}options.{name}", why) for name, why in _wrong(given, rules)]
    if wrong:
        raise Refused.fields(wrong)
    names = CallOptions.__struct_fields__
    return {name: value for name in names if (value := getattr(given, name)) is not None}


def _wrong(given: CallOptions, rules: Rules) -> Iterator[tuple[str, str]]:
    settings, now = rules.settings, rules.now
    last = f"at most {settings.max_delay:,.10g} s from now"
    start = now
    if given.countdown is not None:
        start = now + given.countdown
        if not 0 <= given.countdown <= settings.max_delay:
            yield "countdown", f"must be between 0 and {settings.max_delay:,.10g} seconds"
        if given.eta is not None:
            yield "eta", "cannot go with countdown"
    elif given.eta is not None:
        start = _unix(given.eta)
        if not 0 <= start <= now + settings.max_delay:
            yield "eta", f"must be a moment, {last}"
    if given.expires is not None:
        end = _unix(given.expires) if isinstance(given.expires, datetime) else now + given.expires
        if not now < end <= now + settings.max_delay:
            yield "expires", f"must be after now, and {last}"
        elif end <= start:
            yield "expires", "is before the task may start"
    if given.priority is not None and not 0 <= given.priority <= settings.max_priority:
        yield "priority", f"must be between 0 and {settings.max_priority}"
    if given.queue is not None:
        try:
            check_name("queue", given.queue)
            rules.address(given.queue)
        except (UnknownQueue, ConfigError) as error:
            yield "queue", f"cannot be used: {error}"
    if given.task_id is not None:
        if rules.repeated:
            yield "task_id", "cannot go with an Idempotency-Key, which gives the task its id"
        elif not _ID.fullmatch(given.task_id):
            yield "task_id", "must have 20 to 100 of the characters 0-9 A-Z a-z _ -, which nobody guesses: take a UUID"


def _unix(moment: datetime | float) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else moment
