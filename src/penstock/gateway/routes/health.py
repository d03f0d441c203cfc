"""`/health/live` and `/health/ready`, without a token: for whoever starts gateways, and sends clients to them."""

from __future__ import annotations

from penstock.gateway.answering import Answer, answer_json
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.problems import Refused
from penstock.gateway.steps import Plan


def live(context: Context, asked: Asked) -> Plan[Answer]:
    """It answers."""
    return answer_json(200, {"status": "live"})
    yield  # a plan, of no steps


def ready(context: Context, asked: Asked) -> Plan[Answer]:
    """It answers calls: 503 while the broker cannot be reached, and from when it is told to end."""
    if context.draining():
        raise Refused.later(503, "draining", "this gateway is about to end")
    if not (yield context.readiness.look()):
        raise Refused.later(503, "broker-unavailable", "the broker cannot be reached")
    return answer_json(200, {"status": "ready"})
