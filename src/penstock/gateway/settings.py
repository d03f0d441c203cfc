"""What may be set of a gateway: its bounds, most of all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.message import HIGHEST, MAX_NAME

DAY = 86_400.0
SECONDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "max_wait": (0.001, 3_600.0),
        "body_timeout": (0.001, 3_600.0),
        "max_delay": (0.0, 3_650 * DAY),
        "idempotency": (1.0, 366 * DAY),
        "stream": (0.001, 7 * DAY),
        "poll": (0.001, 60.0),
    }
)
"""The least and the most of each time."""
COUNTS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "max_body": (1, 1 << 30),
        "max_calls": (1, 100_000),
        "max_priority": (0, HIGHEST),
        "open_requests": (1, 1_000_000),
        "client_requests": (1, 1_000_000),
        "burst": (1, 1_000_000),
    }
)
MOST_RATE = 1_000_000.0
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[0-9a-z.-]+)(:[0-9]{1,5})?")


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes. Raises `ConfigError` for what is no bound."""

    expose: tuple[str, ...] = ("*",)
    """Names of tasks that may be called, or globs; a caller needs a scope for it besides."""
    wait: float = 0.0
    """How long a call waits for its result when the request does not say."""
    max_wait: float = 45.0
    """The longest that a request may wait; then a call goes on by itself, and is answered with its address."""
    max_body: int = 1 << 20
    body_timeout: float = 10.0
    """For the whole of a request's body."""
    max_calls: int = 1_000
    """Calls of one batch."""
    max_delay: float = 30 * DAY
    """How far off a call may begin, or expire."""
    max_priority: int = HIGHEST
    """The most urgent that a call may be made."""
    open_requests: int = 2_000
    """Requests that are begun, over all clients; those that wait or follow events count as long."""
    client_requests: int = 200
    """The same of one client."""
    rate: float | None = None
    """Requests a second of one client, on average; `None`: as many as it can."""
    burst: int = 50
    """Requests of one client at once, after a pause, where there is a `rate`."""
    idempotency: float = DAY
    """How long an `Idempotency-Key` is remembered."""
    stream: float = 3_600.0
    """The longest that one stream of events may last; clients connect again by themselves."""
    poll: float = 0.5
    """Between two looks at the progress of a task that somebody follows."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may ask: `https://shop.example`."""

    def __post_init__(self) -> None:
        for name, (least, most) in SECONDS.items():
            check_seconds(name, getattr(self, name), least, most)
        for name, (fewest, largest) in COUNTS.items():
            check_count(name, getattr(self, name), fewest, largest)
        check_seconds("wait", self.wait, 0.0, self.max_wait)
        if self.rate is not None:
            check_seconds("rate", self.rate, 0.0001, MOST_RATE, "requests a second")
        _check_texts("expose", self.expose, "names or globs of tasks", _is_pattern)
        _check_texts(
            "cors_origins", self.cors_origins, "origins such as https://shop.example, without a path", is_origin
        )


def check_seconds(name: str, value: object, least: float, most: float, unit: str = "seconds") -> None:
    """Raises `ConfigError`; what is no number, and NaN, is outside of every range."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not least <= value <= most:  # type: ignore[operator]  # it is a number by then
        raise ConfigError(f"gateway: {name} must be between {least:g} and {most:,.10g} {unit}, not {value!r}")


def check_count(name: str, value: object, least: int, most: int) -> None:
    """Raises `ConfigError`."""
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"gateway: {name} must be a whole number between {least:,} and {most:,}, not {value!r}")


def is_origin(text: object) -> bool:
    """Whether a browser would send just this; `*` and `null` are everybody."""
    return isinstance(text, str) and len(text) <= 300 and _ORIGIN.fullmatch(text) is not None


def _is_pattern(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME and text.isprintable()


def _check_texts(name: str, value: object, what: str, kept: Callable[[object], bool]) -> None:
    wrong = [one for one in value if not kept(one)] if isinstance(value, tuple) else [value]
    if wrong:
        raise ConfigError(f"gateway: {name} must be a tuple of {what}, not {wrong[0]!r:.200}")
