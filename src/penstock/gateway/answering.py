"""An answer as both faces send it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from penstock.gateway.steps import Step

JSON = "application/json"

Events = Generator[Step | bytes, Any, None]
"""A plan whose bytes are sent as they come."""


def nothing() -> None:
    """What there is to do after most answers."""


class Answer(Struct):
    """`events` in place of a body that is known. A face calls `over` when all of it was sent, or nobody takes it."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    events: Events | None = None
    over: Callable[[], None] = nothing


def answer_json(status: int, document: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, msgspec.json.encode(document), {"content-type": JSON, **(headers or {})})


def tagged(answer: Answer, asked: str | None) -> Answer:
    """With its ETag, or 304 without the body where the client has just that."""
    tag = f'"{hashlib.blake2b(answer.body, digest_size=12).hexdigest()}"'
    answer.headers["etag"] = tag
    if asked is not None and has_tag(asked, tag):
        return Answer(304, b"", {"etag": tag})
    return answer


def has_tag(asked: str, tag: str) -> bool:
    """Whether an If-None-Match names the tag, by the weak comparison that it asks for."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in asked[:4_096].split(","))
