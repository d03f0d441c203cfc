"""Ids that nobody can guess: who has one may see the result."""

from __future__ import annotations

import os
from collections.abc import Sequence

from penstock.app import Penstock
from penstock.message import Message

NUMBERED = frozenset({"redis", "rabbitmq"})
"""Engines that number the tasks of a process, so that one id tells the next. Those of the others have a keyed tag."""
ROUTED = "rabbitmq"
"""There results find their way by ids that it gives itself."""


def make_private(app: Penstock, messages: Sequence[Message]) -> None:
    """Give random ids to the messages that have none, where the engine's own could be guessed, and may be replaced."""
    results = app.results.broker.features.engine
    if results == ROUTED or NUMBERED.isdisjoint((app.engine.broker.features.engine, results)):
        return
    for message in messages:
        message.id = message.id or os.urandom(16).hex()
