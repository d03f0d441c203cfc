"""What `penstock doctor` says of periodic tasks: is there a beat for them?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from penstock.cli.findings import Finding, Level
from penstock.cli.terminal import duration
from penstock.errors import ConfigError, Unsupported

if TYPE_CHECKING:
    from penstock.app import Penstock

REMEDY = "start one: penstock beat, or penstock worker -B"
SILENT = 60.0
"""Seconds without a sign of the beat that leads; it gives one every fifteen."""


def check_beat(app: Penstock) -> Iterator[Finding]:
    try:
        timetable = app.timetable
        leader, schedules = timetable.leader(), timetable.list()
    except Unsupported as error:
        if app.periodic:
            yield Finding(Level.ERROR, "beat", str(error))
        return
    except ConfigError as error:
        yield Finding(Level.ERROR, "beat", str(error))
        return
    if not schedules:
        return
    count = f"{len(schedules):,} schedules"
    paused = sum(one.paused for one in schedules)
    if leader is None:
        yield Finding(Level.WARNING, "beat", f"{count}, and no beat has ever led", REMEDY)
        return
    silent = max(0.0, app.clock.time() - leader.seen)
    if silent > SILENT:
        text = f"{count}, and nothing was heard of a beat for {duration(silent)}"
        yield Finding(Level.WARNING, "beat", text, REMEDY)
        return
    yield Finding(Level.OK, "beat", f"{count}, {paused:,} of them paused; {leader.holder} leads")
