"""Bodies and results as people may see them: JSON, also where it is compressed or signed. Shown, never believed."""

from __future__ import annotations

from penstock.codec import Bounds, inflate, unsigned_result
from penstock.errors import DecodeError

SHOWN = Bounds(max_bytes=1 << 20)
"""Nobody reads a megabyte on a terminal."""


def as_json(data: bytes, content_type: str) -> bytes | None:
    """The JSON in `data`; `None` where it is none, is damaged, or too large to show."""
    try:
        data, content_type = unsigned_result(data, content_type)
        name, _, compression = content_type.partition("+")
        if name != "json":
            return None
        return inflate(compression, data, SHOWN) if compression else data
    except DecodeError:
        return None
