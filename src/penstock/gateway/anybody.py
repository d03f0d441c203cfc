"""A gateway without tokens, for a trial on one's own machine."""

from __future__ import annotations

from penstock.gateway.asking import Request
from penstock.gateway.problems import Refused
from penstock.gateway.scopes import EVERYTHING, Caller
from penstock.loopback import is_loopback


def anybody(request: Request) -> Caller:
    """Everybody may do everything, from this machine. Raises `Refused` for a request that names another host: a web
    page may have its own name lead here, and would be let in with the browser."""
    host = request.headers.get("host", "")
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if not is_loopback(name):
        raise Refused(421, "wrong-host", "without tokens this gateway answers to localhost only")
    if request.client and not is_loopback(request.client):
        raise Refused(403, "forbidden", "without tokens this gateway answers this machine only")
    return Caller(request.client or "local", EVERYTHING)
