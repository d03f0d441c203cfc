"""What a load is tried on, as it is told to workers and callers through their environment."""

from __future__ import annotations

import struct

from msgspec import Struct

PRESSED = "PENSTOCK_BENCH_PRESSED"
QUEUE = "work"
NOTE = struct.Struct("<qdd")
"""Number of the call; when it began and ended, by the clock that all processes of this machine share."""


class Pressed(Struct, frozen=True):
    """`length` is the declared bound in tasks, `latency` the queue's `max_latency`. A task sleeps for `seconds`, or
    needs as much CPU time with `cpu`; it is noted in the file `notes`. Results are kept for `kept` seconds, or as
    long as the server keeps them."""

    notes: str
    seconds: float
    length: int
    latency: float | None = None
    cpu: bool = False
    kept: float | None = None
    results: str | None = None
    """The URL of their server, if that is another."""
