"""The servers behind a replicated engine, as `penstock queues` and `penstock doctor` show them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from penstock.broker import Member
from penstock.cli.terminal import clean, duration, size, table
from penstock.engine import Engine
from penstock.errors import Unsupported

HEADS = ("server", "role", "state", "in sync", "lag")
SAID = {True: "yes", False: "no", None: "?"}


def members_of(engine: Engine) -> Sequence[Member]:
    """None where the engine is not replicated, or does not tell."""
    try:
        return engine.run(engine.inspect.members())
    except Unsupported:
        return ()


def members_table(members: Sequence[Member]) -> str:
    return table(HEADS, [row(member) for member in members])


def row(member: Member) -> list[str]:
    state = "alive" if member.alive else click.style("not reached", fg="red")
    note = f" {clean(member.note)}" if member.note else ""
    return [clean(member.address), clean(member.role), state + note, SAID[member.in_sync], lag(member)]


def lag(member: Member) -> str:
    """How far it is behind, in whatever the server tells."""
    told = [] if member.lag is None else [duration(member.lag)]
    told += [] if member.lag_bytes is None else [size(member.lag_bytes)]
    return ", ".join(told) or ("–" if member.role == "leader" else "?")
