"""Headers that all answers have: what a browser must not do with them, and which web pages may read them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from penstock.gateway.answering import Answer
from penstock.gateway.asking import Request
from penstock.gateway.settings import GatewaySettings

SECURITY: Mapping[str, str] = MappingProxyType(
    {
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
    }
)
"""For who opens an answer in a browser: it is data, whatever is in it."""
METHODS = "GET, HEAD, POST, DELETE"
SENT = "authorization, content-type, idempotency-key, if-none-match, last-event-id"
READ = "etag, location, retry-after"
PREFLIGHT_AGE = "600"
"""Seconds for which a browser need not ask again."""


def preflight(request: Request, settings: GatewaySettings) -> Answer | None:
    """The answer to a browser that asks whether a page may send something; `None`: it is another request."""
    if request.method != "OPTIONS" or not settings.cors_origins:
        return None
    if "origin" not in request.headers or "access-control-request-method" not in request.headers:
        return None
    allowed = {
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": SENT,
        "access-control-max-age": PREFLIGHT_AGE,
    }
    return Answer(204, headers=allowed if is_allowed(request, settings) else {})


def finished(answer: Answer, request: Request, settings: GatewaySettings) -> Answer:
    """The answer with all that it needs. Pages are never let in with credentials of the browser's own (cookies, a
    password that it remembers): they send an Authorization that they know."""
    headers = answer.headers
    headers.update(SECURITY)
    headers.setdefault("cache-control", "no-store")
    if settings.cors_origins:
        headers["vary"] = "origin"
        if is_allowed(request, settings):
            headers["access-control-allow-origin"] = request.headers["origin"]
            headers["access-control-expose-headers"] = READ
    return answer


def is_allowed(request: Request, settings: GatewaySettings) -> bool:
    """Whether a page of that origin may ask."""
    return request.headers.get("origin") in settings.cors_origins
