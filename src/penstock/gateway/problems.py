"""What goes wrong, as HTTP tells it: one table from Penstock's errors to status codes, and RFC 9457's form of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import msgspec

from penstock import errors
from penstock.gateway.answering import Answer

PROBLEM = "application/problem+json"
RETRY_LATER = 5
"""Seconds that a client waits where nobody can say more."""

TABLE: Sequence[tuple[type[BaseException], int, str]] = (
    (errors.QueueFull, 503, "queue-full"),
    (errors.AlreadyQueued, 409, "already-queued"),
    (errors.MessageTooLarge, 413, "too-large"),
    (errors.UnknownTask, 404, "unknown-task"),
    (errors.UnknownQueue, 404, "unknown-queue"),
    (errors.SignatureError, 502, "not-trusted"),
    (errors.DecodeError, 422, "invalid"),
    (errors.EncodeError, 422, "invalid"),
    (errors.AccessRefused, 502, "broker-refuses"),
    (errors.OutcomeUnknown, 504, "outcome-unknown"),
    (errors.BrokerError, 503, "broker-unavailable"),
    (errors.ResultTimeout, 504, "result-timeout"),
    (errors.ResultError, 409, "no-result"),
    (errors.Unsupported, 501, "unsupported"),
    (errors.ConfigError, 422, "invalid"),
)
"""The first that fits. What is not here is a mistake of ours, or of the app's own code: 500, and nothing is told."""
HIDDEN: Mapping[str, str] = MappingProxyType(
    {
        "broker-refuses": "the broker does not let this gateway do it",
        "broker-unavailable": "the broker does not serve just now; nothing was done",
        "not-trusted": "the result is not signed by anybody who is trusted here",
    }
)
"""What is said instead of texts that name servers, users and keys."""
AGAIN = frozenset({"queue-full", "broker-unavailable", "busy", "draining", "over-share"})


class Refused(Exception):
    """A request that is answered with a problem. `more` are members of it beside the usual ones."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.more = dict(headers or {}), dict(more or {})
        super().__init__(detail)

    @classmethod
    def field(cls, field: str, detail: str) -> Refused:
        return cls.fields([(field, detail)])

    @classmethod
    def fields(cls, found: Sequence[tuple[str, str]]) -> Refused:
        """422, naming each field and what is wrong with it."""
        text = "; ".join(f"{field} {detail}" for field, detail in found)
        return cls(422, "invalid", text, more={"errors": [{"field": f, "detail": d} for f, d in found]})

    @classmethod
    def later(cls, status: int, code: str, detail: str, after: float = RETRY_LATER) -> Refused:
        return cls(status, code, detail, {"retry-after": str(max(1, math.ceil(after)))})


def refusal(error: BaseException) -> Refused | None:
    """How an error is told; `None`: it is nobody's business outside."""
    if isinstance(error, Refused):
        return error
    found = next(((status, code) for kind, status, code in TABLE if isinstance(error, kind)), None)
    if found is None:
        return None
    status, code = found
    detail = HIDDEN.get(code) or str(error)
    if isinstance(error, errors.QueueFull):
        return Refused.later(status, code, detail, error.retry_after)
    if isinstance(error, errors.AlreadyQueued):
        return Refused(status, code, "a task of the same unique key is there", more={"id": error.task_id})
    if isinstance(error, errors.OutcomeUnknown):
        detail = "it may or may not have been accepted; look for its id, or repeat it with the same Idempotency-Key"
        return Refused(status, code, detail, more={"ids": list(error.ids)})
    if code in AGAIN:
        return Refused.later(status, code, detail)
    return Refused(status, code, detail)


UNEXPECTED = Refused(500, "failed", "this request could not be served; the gateway's log says why")


def problem(refused: Refused) -> dict[str, Any]:
    """The members of a problem's document."""
    return {
        "type": f"urn:penstock:{refused.code}",
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "detail": refused.detail,
        **refused.more,
    }


def problem_answer(refused: Refused) -> Answer:
    body = msgspec.json.encode(problem(refused))
    return Answer(refused.status, body, {"content-type": PROBLEM, **refused.headers})


def too_large(most: int) -> Refused:
    return Refused(413, "too-large", f"a body has up to {most:,} bytes here: store the data elsewhere and send its key")


def too_slow(seconds: float) -> Refused:
    return Refused(408, "too-slow", f"the body did not come within {seconds:g} s")
