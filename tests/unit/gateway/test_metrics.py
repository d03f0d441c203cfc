"""What the gateway tells Prometheus."""

from __future__ import annotations

import asyncio
import sys

import pytest

from penstock import BrokerUnavailable, Penstock
from tests.exposition import Exposed
from tests.unit.gateway.faces import Face


def test_queues_are_told_to_who_may_scrape_and_nothing_else(face: Face, penstock_app: Penstock) -> None:
    penstock_app.tasks["tasks.add"].delay_many([(1, 2)] * 4)
    face.may("read", "revoke", "inspect", "call:*")
    assert face.get("/metrics").status == 403
    face.may("metrics")
    answer = face.get("/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = Exposed(answer.body)
    assert found.get("penstock_queue_depth_tasks", namespace="", queue="default") == 4
    assert found.get("penstock_queue_limit_tasks", namespace="", queue="default") == 6
    assert found.get("penstock_broker_up") == 1
    assert face.get("/v1/queues/default/backlog").status == 403


def test_a_broker_that_is_away_is_told_too(face: Face, penstock_app: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(type(penstock_app.engine.inspect), "queues", away)
    answer = face.get("/metrics")
    assert answer.status == 200
    assert Exposed(answer.body).samples == {("penstock_broker_up", frozenset()): 0}


def test_a_broker_that_does_not_answer_is_away_before_prometheus_gives_up(
    penstock_app: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(*_: object) -> None:
        await asyncio.sleep(60.0)

    monkeypatch.setattr(type(penstock_app.engine), "arun", silent)
    monkeypatch.setattr(sys.modules["penstock.gateway.routes.metrics"], "PATIENCE", 0.05)
    answer = Face("asgi", penstock_app).get("/metrics")
    assert Exposed(answer.body).samples == {("penstock_broker_up", frozenset()): 0}
