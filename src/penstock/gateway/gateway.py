"""The gateway without its servers: from a request to the plan of its answer. What the routes do is in `routes/`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from penstock.app import Penstock
from penstock.gateway.answering import Answer
from penstock.gateway.asking import Request
from penstock.gateway.calls import Callables
from penstock.gateway.problems import UNEXPECTED, Refused, problem_answer, refusal
from penstock.gateway.scopes import Caller, Scopes
from penstock.gateway.settings import GatewaySettings
from penstock.gateway.shares import Account, Shares
from penstock.gateway.steps import Plan

log = logging.getLogger("penstock.gateway")

Authenticate = Callable[[Request], Caller]
"""Who asks, from what a request says of itself; raises `Refused`. Must not block."""


class Asked(Struct, frozen=True):
    """A request that is let in. `name` is the part of the path that names something."""

    request: Request
    caller: Caller
    name: str = ""


class Context(Struct, frozen=True):
    """What all routes need."""

    app: Penstock
    settings: GatewaySettings
    tasks: Callables


Handler = Callable[[Context, Asked], Plan[Answer]]
Routes = Mapping[tuple[str, ...], Mapping[str, Handler]]
"""By the parts of a path, where `*` is any one, and the method."""


class Gateway:
    """Thread-safe; one for each app. It opens the app's engine at the first request that needs it."""

    def __init__(self, app: Penstock, authenticate: Authenticate, settings: GatewaySettings, routes: Routes) -> None:
        self.settings = settings
        self._authenticate = authenticate
        self._shares = Shares(settings, app.clock)
        self._routes = routes
        self._context = Context(app, settings, Callables(app, Scopes(settings.expose)))

    def answer(self, request: Request) -> Plan[Answer]:
        """Never raises for what a client did: what goes wrong is an answer, too."""
        account: Account | None = None
        answer: Answer | None = None
        try:
            handler, name = self._handler(request)
            caller = self._authenticate(request)
            account = self._shares.enter(caller.name)
            answer = yield from handler(self._context, Asked(request, caller, name))
        except Exception as error:
            refused = refusal(error)
            if refused is None:
                log.exception("%s %s failed", request.method, request.path[:200])
                refused = UNEXPECTED
            elif refused.status in (502, 503) and not isinstance(error, Refused):
                log.warning("%s %s: %s: %s", request.method, request.path[:200], type(error).__name__, error)
            answer = problem_answer(refused)
        finally:
            if account is not None and (answer is None or answer.events is None):
                self._shares.leave(account)
        if account is not None and answer.events is not None:
            answer.over = _once(self._shares.leave, account)
        return answer

    @property
    def open(self) -> int:
        """Requests that are begun."""
        return self._shares.open

    def _handler(self, request: Request) -> tuple[Handler, str]:
        parts = tuple(request.path.split("/", 8))
        name = parts[3] if len(parts) > 3 else ""
        found = (
            self._routes.get(parts) or self._routes.get((*parts[:3], "*", *parts[4:]))
            if name
            else self._routes.get(parts)
        )
        if found is None:
            raise Refused(404, "no-such-place", "there is nothing at this path; see v1/openapi.json")
        handler = found.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ", ".join(sorted(found.keys() | ({"HEAD"} if "GET" in found else set())))
            raise Refused(405, "bad-method", f"only {allowed} here", {"allow": allowed})
        return handler, name


def _once(call: Callable[[Any], None], argument: Any) -> Callable[[], None]:
    """`call(argument)` at the first call only."""
    left = [argument]
    return lambda: call(left.pop()) if left else None
