"""What is stored, and what the app's code says: which of the two holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from penstock.beat.line import Line
from penstock.beat.stored import Record, line_from
from penstock.errors import ConfigError


def reconciled(fresh: Record | None, record: Record | None, now: float) -> Record | None:
    """What is to be stored, of what the code says (`None`: nothing) and what is stored. A line that is new, or other
    than before, begins now; one that is paused stays so, whatever else changes."""
    if record is not None and record.origin == "added":
        return record
    if fresh is None:
        return None
    if record is None:
        return replace(fresh, since=now)
    same = replace(fresh, since=record.since, paused=record.paused) == record
    return record if same else replace(fresh, since=now, paused=record.paused)


def in_force(record: Record, own: Mapping[str, Line]) -> Line | None:
    """The line of a record. Of the app's own, what the code says; `None` for one that nobody here knows."""
    line = own.get(record.name) if record.origin == "app" else None
    if line is not None:
        return replace(line, since=record.since, paused=record.paused)
    return line_from(record)


def check_clashes(own: Mapping[str, Line], stored: Mapping[str, Record]) -> None:
    """Raise `ConfigError` when the code has a schedule whose name somebody gave to another at run time."""
    for name in own:
        record = stored.get(name)
        if record is not None and record.origin == "added":
            raise ConfigError(
                f"two schedules are named {name!r}: one in the app's code, and {record.text!r}, added at run time; "
                f"rename the one, or remove the other (penstock beat remove)"
            )
