"""Bodies and results as people may see them: JSON, also where it is compressed or signed. Shown, never believed."""

from __future__ import annotations

import json
from typing import Any

from penstock.codec import Bounds, inflate, unsigned_result
from penstock.errors import DecodeError
from penstock.message import Message

SHOWN = Bounds(max_bytes=1 << 20)
"""Nobody reads a megabyte."""


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


def arguments(message: Message) -> str:
    """As a call would be written, where the body can be read."""
    values = decoded(message)
    if values is None:
        return f"({len(message.body):,} bytes of {ascii(message.content_type)[1:-1]})"
    args, kwargs = values
    shown = [json.dumps(value, ensure_ascii=False) for value in args]
    shown += [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in kwargs.items()]
    return f"({', '.join(shown)})"


def decoded(message: Message) -> tuple[list[Any], dict[str, Any]] | None:
    """The arguments of a JSON body; `None` for any other."""
    body = as_json(message.body, message.content_type)
    if body is None:
        return None
    try:
        args, kwargs = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return None
    return (args, kwargs) if isinstance(args, list) and isinstance(kwargs, dict) else None
