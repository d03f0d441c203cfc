"""What may be set of a gateway: its bounds, most of all."""

from __future__ import annotations

import math

from msgspec import Struct

from penstock.errors import ConfigError


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
    open_requests: int = 2_000
    """Requests that are begun, over all clients; those that wait or follow events count as long."""
    client_requests: int = 200
    """The same of one client."""
    rate: float | None = None
    """Requests a second of one client, on average; `None`: as many as it can."""
    burst: int = 50
    """Requests of one client at once, after a pause, where there is a `rate`."""
    idempotency: float = 86_400.0
    """How long an `Idempotency-Key` is remembered."""
    stream: float = 3_600.0
    """The longest that one stream of events may last; clients connect again by themselves."""
    poll: float = 0.5
    """Between two looks at the progress of a task that somebody follows."""

    def __post_init__(self) -> None:
        for name in ("max_wait", "body_timeout", "idempotency", "stream", "poll"):
            _check(name, getattr(self, name), "a number of seconds above 0", 0 < getattr(self, name) < math.inf)
        _check("wait", self.wait, f"between 0 and max_wait ({self.max_wait:g})", 0 <= self.wait <= self.max_wait)
        for name in ("max_body", "max_calls", "open_requests", "client_requests", "burst"):
            _check(name, getattr(self, name), "at least 1", getattr(self, name) >= 1)
        _check("rate", self.rate, "above 0, or None", self.rate is None or 0 < self.rate < math.inf)


def _check(name: str, value: object, rule: str, kept: bool) -> None:
    if not kept:
        raise ConfigError(f"gateway: {name} must be {rule}, not {value!r}")
