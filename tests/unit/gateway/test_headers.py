"""What all answers have, which web pages may ask, and how a gateway says that it is well."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from penstock import Penstock
from penstock.errors import AccessRefused, BrokerUnavailable, UnknownQueue
from penstock.gateway import GatewaySettings, readiness
from penstock.gateway.gateway import Gateway
from tests.unit.gateway.faces import Face

SHOP = "https://shop.example"
ASKED = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.mark.parametrize("path", ["/v1/info", "/v1/none", "/health/live", "/v1/openapi.json", "/v1/tasks/x"])
def test_answers_are_data_and_are_not_kept(face: Face, path: str) -> None:
    headers = face.get(path).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/info", "/v1/openapi.json", "/health/live", "/health/ready", "/v1/none"])
def test_a_head_is_the_get_without_its_body(face: Face, path: str) -> None:
    get, head = face.get(path), face.ask("HEAD", path)
    assert (head.status, head.body) == (get.status, b"")
    assert dict(head.headers) == dict(get.headers)


def test_without_origins_no_page_is_answered(face: Face) -> None:
    assert face.ask("OPTIONS", "/v1/tasks/tasks.add", None, {"origin": SHOP} | ASKED).status == 405


def test_a_page_of_an_origin_may_ask(make_face: Callable[..., Face]) -> None:
    face = make_face(cors_origins=(SHOP,))
    before = face.ask("OPTIONS", "/v1/tasks/tasks.add", None, {"origin": SHOP} | ASKED)
    assert (before.status, before.headers["access-control-allow-origin"]) == (204, SHOP)
    assert "authorization" in before.headers["access-control-allow-headers"]
    reply = face.post("/v1/tasks/tasks.add", {"args": [1]}, origin=SHOP)
    assert (reply.status, reply.headers["access-control-allow-origin"], reply.headers["vary"]) == (202, SHOP, "origin")
    assert "location" in reply.headers["access-control-expose-headers"]
    for one in (before, reply):
        assert "access-control-allow-credentials" not in one.headers


@pytest.mark.parametrize(
    "origin",
    ["https://shop.example.evil", "http://shop.example", "https://shop.example:8443", "null", "*", "", SHOP.upper()],
)
def test_a_page_of_another_may_not(make_face: Callable[..., Face], origin: str) -> None:
    face = make_face(cors_origins=(SHOP,))
    for reply in (
        face.ask("OPTIONS", "/v1/tasks/tasks.add", None, {"origin": origin} | ASKED),
        face.get("/v1/info", origin=origin),
    ):
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert reply.headers["vary"] == "origin"


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "shop.example", "https://shop.example/", "https://*.example", "ftp://a", "https://A.example", 5],
)
def test_an_origin_is_what_a_browser_sends(origin: object) -> None:
    from penstock.errors import ConfigError

    with pytest.raises(ConfigError, match="cors_origins"):
        GatewaySettings(cors_origins=(origin,))  # type: ignore[arg-type]  # wrong ones too


def test_health_needs_no_token_and_tells_nothing(face: Face) -> None:
    face.may()
    assert face.get("/health/live").json == {"status": "live"}
    assert face.get("/health/ready").json == {"status": "ready"}
    assert face.ask("POST", "/health/live", b"{}").status == 405


def test_one_that_drains_is_not_ready(face: Face) -> None:
    gateway: Gateway
    for gateway in (face.asgi.gateway, face.wsgi.gateway):  # type: ignore[attr-defined]  # it is a WsgiGateway
        gateway.draining = True
    reply = face.get("/health/ready")
    assert (reply.status, reply.json["type"]) == (503, "urn:penstock:draining")
    assert face.get("/health/live").status == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [(BrokerUnavailable("the secret host"), 503), (AccessRefused("not for you"), 200), (UnknownQueue("default"), 200)],
)
def test_one_whose_broker_is_away_is_not_ready(
    face: Face, penstock_app: Penstock, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def broken(*_: object) -> int:
        raise error

    monkeypatch.setattr(penstock_app.broker, "depth", broken)
    reply = face.get("/health/ready")
    assert reply.status == status
    assert b"secret" not in reply.body


def test_the_broker_is_asked_once_a_second_whoever_asks(
    face: Face, penstock_app: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    depth = penstock_app.broker.depth
    monkeypatch.setattr(readiness, "FRESH", 1_000.0)
    monkeypatch.setattr(penstock_app.broker, "depth", lambda *names: (asked.append(names), depth(*names))[1])
    assert {face.get("/health/ready").status for _ in range(20)} == {200}
    assert len(asked) == 1


def test_a_broker_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = [], threading.Event()

    def hanging() -> None:
        asked.append(1)
        go_on.wait(20)

    monkeypatch.setattr(readiness, "PATIENCE", 0.05)
    monkeypatch.setattr(readiness, "FRESH", 0.0)
    ready = readiness.Readiness(hanging)

    async def ask() -> list[bool]:
        found = [await ready.look().awaited() for _ in range(5)]
        go_on.set()
        return found

    assert asyncio.run(ask()) == [False] * 5
    assert len(asked) == 1
    assert ready.look().block() is True


def test_a_header_that_is_given_twice_is_no_header(face: Face) -> None:
    """What a proxy checked must not be another one than what is looked at here."""
    from penstock.gateway.asgi import request_of
    from tests.unit.gateway.faces import http_scope

    scope = http_scope("GET", "/v1/info")
    scope["headers"] = [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")]
    assert request_of(scope).headers["authorization"] == "Bearer a, Bearer b"
