"""What the gateway answers, and where."""

from __future__ import annotations

from types import MappingProxyType

from penstock.gateway.gateway import Open, Routes
from penstock.gateway.routes.batches import call_many
from penstock.gateway.routes.calling import call
from penstock.gateway.routes.events import follow
from penstock.gateway.routes.health import live, ready
from penstock.gateway.routes.looking import look, revoke
from penstock.gateway.routes.metrics import metrics
from penstock.gateway.routes.operating import backlog, info, openapi

ROUTES: Routes = MappingProxyType(
    {
        ("", "v1", "tasks", "*"): {"POST": call, "GET": look, "DELETE": revoke},
        ("", "v1", "tasks", "*", "events"): {"GET": follow},
        ("", "v1", "batches"): {"POST": call_many},
        ("", "v1", "queues", "*", "backlog"): {"GET": backlog},
        ("", "v1", "info"): {"GET": info},
        ("", "v1", "openapi.json"): {"GET": openapi},
        ("", "health", "live"): {"GET": Open(live)},
        ("", "health", "ready"): {"GET": Open(ready)},
        ("", "metrics"): {"GET": metrics},
    }
)
