"""Tasks over HTTP: called, looked at, followed and revoked by whoever speaks it. A client of the app.

`asgi_app` and `wsgi_app` are two faces of one `Gateway`; `penstock gateway` serves the first.
"""

from penstock.gateway.asgi import AsgiGateway, asgi_app
from penstock.gateway.asking import Request
from penstock.gateway.limiter import LittlesLaw
from penstock.gateway.middleware import AsgiBackPressure, WsgiBackPressure
from penstock.gateway.scopes import Caller, Scopes
from penstock.gateway.settings import GatewaySettings
from penstock.gateway.tokens import TokenFile
from penstock.gateway.users import BrokerUsers
from penstock.gateway.wsgi import wsgi_app

__all__ = [
    "AsgiBackPressure",
    "AsgiGateway",
    "BrokerUsers",
    "Caller",
    "GatewaySettings",
    "LittlesLaw",
    "Request",
    "Scopes",
    "TokenFile",
    "WsgiBackPressure",
    "asgi_app",
    "wsgi_app",
]
