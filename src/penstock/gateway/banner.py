"""What a gateway says of itself when it starts: where it publishes, and whom it lets in."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from penstock.gateway.scopes import Scopes
from penstock.gateway.tokens import TokenFile
from penstock.gateway.users import BrokerUsers
from penstock.worker.banner import laid_out, survived

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.gateway.gateway import Authenticate
    from penstock.gateway.settings import GatewaySettings

MOST = 20
"""Tasks that are named."""


def banner(app: Penstock, authenticate: Authenticate, settings: GatewaySettings) -> str:
    """No URL has a password."""
    exposed = Scopes(settings.expose)
    names = sorted(name for name in app.tasks if exposed.may_call(name))
    more = [f"and {len(names) - MOST} more: see v1/info"] if len(names) > MOST else []
    none = "none: is the module that defines them imported, and does --expose fit?"
    return laid_out(
        [
            ("app", app.name),
            *_broker(app, authenticate),
            ("lets in", _clients(authenticate)),
            ("tasks", "\n             ".join([*names[:MOST], *more]) or none),
        ]
    )


def _broker(app: Penstock, authenticate: Authenticate) -> list[tuple[str, str]]:
    if isinstance(authenticate, BrokerUsers):  # it has no connection of its own
        url = urlsplit(app.broker_url)
        return [("broker", f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}")]
    return [("broker", app.engine.url), ("survives", survived(app.engine.broker.features))]


def _clients(authenticate: Authenticate) -> str:
    if isinstance(authenticate, BrokerUsers):
        return "the broker's users"
    if isinstance(authenticate, TokenFile):
        return authenticate.summary()
    return "everybody on this machine"
