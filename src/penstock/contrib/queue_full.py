"""A full queue, told to the client of a web framework whose own middleware, or ours, would not see it."""

from __future__ import annotations

from math import ceil

from penstock.errors import QueueFull

STATUS = 503


def headers(error: QueueFull) -> dict[str, str]:
    """When it is to come again."""
    return {"Retry-After": str(max(1, ceil(error.retry_after)))}


def body(error: QueueFull) -> str:
    return f"{error}\n"
