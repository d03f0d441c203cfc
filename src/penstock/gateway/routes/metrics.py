"""What Prometheus is told by the gateway: queues, and the pressure on them."""

from __future__ import annotations

from functools import partial

from penstock import apart
from penstock.errors import PenstockError
from penstock.gateway.answering import Answer
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.routes.common import need
from penstock.gateway.scopes import METRICS
from penstock.gateway.steps import Plan, within
from penstock.metrics.families import broker_up, of_queues
from penstock.metrics.text import CONTENT_TYPE, render
from penstock.pressure.overview import Overview, overview

PATIENCE = 3.0
"""Seconds after which a broker that does not answer is away: Prometheus itself waits for ten."""


def metrics(context: Context, asked: Asked) -> Plan[Answer]:
    """In the text format of Prometheus. A broker that is away is a metric, too."""
    need(asked.caller, METRICS)
    asked.request.arguments(())
    app, own = context.app, context.answered.families()
    try:
        look = partial(overview, app.engine, apart.shared(app), app.clock, app.conf.namespace)
        view: Overview = yield within(PATIENCE, app.engine, look)
        families = [*own, broker_up(True), *of_queues(view.queues)]
    except PenstockError:
        families = [*own, broker_up(False)]
    return Answer(200, render(families), {"content-type": CONTENT_TYPE, "cache-control": "no-store"})
