"""What Prometheus is told by the gateway: queues, and the pressure on them."""

from __future__ import annotations

from penstock import apart
from penstock.errors import PenstockError
from penstock.gateway.answering import Answer
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.routes.common import need
from penstock.gateway.scopes import METRICS
from penstock.gateway.steps import Plan, on
from penstock.metrics.families import broker_up, of_queues
from penstock.metrics.text import CONTENT_TYPE, render
from penstock.pressure.overview import Overview, overview


def metrics(context: Context, asked: Asked) -> Plan[Answer]:
    """In the text format of Prometheus. A broker that is away is a metric, too."""
    need(asked.caller, METRICS)
    asked.request.arguments(())
    app = context.app
    try:
        state = apart.shared(app)
        view: Overview = yield on(app.engine, lambda: overview(app.engine, state, app.clock, app.conf.namespace))
        families = [broker_up(True), *of_queues(view.queues)]
    except PenstockError:
        families = [broker_up(False)]
    return Answer(200, render(families), {"content-type": CONTENT_TYPE, "cache-control": "no-store"})
