"""Middleware: an onion around publishing and around running, in one signature each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.delivery import Delivery
from penstock.message import Message

Publishing = Callable[[Sequence[Message]], Sequence[Message]]
"""Sees (and may replace) messages before they are published. What it raises reaches the caller; nothing is
published."""

Running = Callable[[Delivery, Callable[[], object]], object]
"""Wraps the call of a task's function: call the second argument to go on inward. What it raises is the task's error."""
