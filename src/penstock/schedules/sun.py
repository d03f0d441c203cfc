"""`solar`: sunrise, sunset and their twilights, with Celery's names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.schedules.zones import LAST, is_number
from penstock.spelling import hint

EVENTS: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "dawn_astronomical": ("dawn", {"depression": 18}),
        "dawn_nautical": ("dawn", {"depression": 12}),
        "dawn_civil": ("dawn", {"depression": 6}),
        "sunrise": ("sunrise", {}),
        "solar_noon": ("noon", {}),
        "sunset": ("sunset", {}),
        "dusk_civil": ("dusk", {"depression": 6}),
        "dusk_nautical": ("dusk", {"depression": 12}),
        "dusk_astronomical": ("dusk", {"depression": 18}),
    }
)
"""Celery's name of an event → the function of astral, and what it takes."""
DAYS = 400
"""Days to look ahead: beyond the polar circles an event may not come for half a year; at the poles it may never."""


class solar(Struct, frozen=True, tag="solar"):
    """At an event of the sun, seen from `lat` and `lon` in degrees (north and east are positive), to the second.

    Needs the extra `solar`. Days without the event are left out. Raises `ConfigError`.
    """

    event: str
    lat: float
    lon: float

    def __post_init__(self) -> None:
        if self.event not in EVENTS:
            raise ConfigError(f"solar: there is no event {self.event!r}{hint(str(self.event), EVENTS)}")
        for name, value, most in (("lat", self.lat, 90), ("lon", self.lon, 180)):
            if not is_number(value) or not -most <= value <= most:
                raise ConfigError(f"solar: {name} must be a number from -{most} to {most}, not {value!r}")

    def __str__(self) -> str:
        return f"{self.event} at {self.lat:g}, {self.lon:g}"

    def next_after(self, moment: float) -> float | None:
        """The first Unix time after `moment` at which it is due; `None`: not within 400 days."""
        if moment >= LAST - (DAYS + 2) * 86_400:
            return None
        start = datetime.fromtimestamp(moment, UTC).date() - timedelta(days=1)
        for number in range(DAYS):
            day = start + timedelta(days=number)
            # Two days together: an event near midnight of UTC may be counted to either.
            pair = (self._on(day), self._on(day + timedelta(days=1)))
            found = [tick for tick in pair if tick is not None and tick > moment]
            if found:
                return min(found)
        return None

    def _on(self, day: date) -> float | None:
        astral, sun = _astral()
        name, options = EVENTS[self.event]
        try:
            at: datetime = getattr(sun, name)(astral.Observer(self.lat, self.lon), day, tzinfo=UTC, **options)
        except ValueError:  # not on this day
            return None
        return float(int(at.timestamp()))


def _astral() -> tuple[Any, Any]:
    try:
        import astral
        import astral.sun
    except ModuleNotFoundError as error:
        raise ConfigError("solar schedules need astral: pip install 'penstock[solar]'") from error
    return astral, astral.sun
