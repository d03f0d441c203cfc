"""What the gateway tells Prometheus."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine

import pytest

from penstock import BrokerUnavailable, Penstock
from penstock.gateway.answered import KINDS, OTHERS, Answered
from tests.exposition import Exposed
from tests.unit.gateway.faces import Face


def of_others(body: bytes) -> dict[object, float]:
    """What is told of anything but this gateway."""
    return {one: value for one, value in Exposed(body).samples.items() if not one[0].startswith("penstock_gateway_")}


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
    assert of_others(answer.body) == {("penstock_broker_up", frozenset()): 0}


def test_a_broker_that_does_not_answer_is_away_before_prometheus_gives_up(
    penstock_app: Penstock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: object, call: Coroutine[object, object, object]) -> None:
        call.close()
        await asyncio.sleep(60.0)

    monkeypatch.setattr(type(penstock_app.engine), "arun", silent)
    monkeypatch.setattr(sys.modules["penstock.gateway.routes.metrics"], "PATIENCE", 0.05)
    answer = Face("asgi", penstock_app).get("/metrics")
    assert of_others(answer.body) == {("penstock_broker_up", frozenset()): 0}


def test_what_was_answered_and_refused_is_counted_by_its_kind(face: Face) -> None:
    for _ in range(8):
        face.post("/v1/tasks/tasks.add", {"args": [1]})
    face.post("/v1/tasks/tasks.add", {"args": ["x"]})
    face.may("metrics")
    face.get("/v1/queues/default/backlog")
    found = Exposed(face.get("/metrics").body)

    def answers(status: int, problem: str) -> float | None:
        return found.get("penstock_gateway_answers_total", status=str(status), problem=problem)

    assert (answers(202, ""), answers(503, "queue-full")) == (6, 2)
    assert (answers(422, "invalid"), answers(403, "forbidden")) == (1, 1)
    assert found.get("penstock_gateway_requests_open") == 1, "this one"


def test_kinds_of_answers_have_a_bound() -> None:
    answered = Answered(lambda: 0)
    for number in range(KINDS + 7):
        answered.add(400, str(number))
    assert len(answered.families()[0].samples) == KINDS + 1
    others = next(one for one in answered.families()[0].samples if one.labels["problem"] == OTHERS)
    assert others.value == 7
