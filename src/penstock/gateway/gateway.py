"""The gateway without its servers: from a request to the plan of its answer. What the routes do is in `routes/`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from penstock.app import Penstock
from penstock.errors import AccessRefused
from penstock.gateway.answered import Answered
from penstock.gateway.answering import Answer
from penstock.gateway.asking import Request
from penstock.gateway.calls import Callables
from penstock.gateway.headers import finished, preflight
from penstock.gateway.openapi import TOKENS, USERS
from penstock.gateway.problems import UNEXPECTED, Refused, problem_answer, refusal
from penstock.gateway.readiness import Readiness, ask_of_queue, knock_at
from penstock.gateway.scopes import Caller, Scopes
from penstock.gateway.seldom import Seldom
from penstock.gateway.settings import GatewaySettings
from penstock.gateway.shares import Shares
from penstock.gateway.steps import Plan, Step
from penstock.gateway.users import BrokerUsers

log = logging.getLogger("penstock.gateway")

Authenticate = Callable[[Request], Caller | Step]
"""Who asks, from what a request says of itself; raises `Refused`. Must not block: what takes long is a step, which is
answered with the caller."""


class Asked(Struct, frozen=True):
    """A request that is let in. `name` is the part of the path that names something."""

    request: Request
    caller: Caller
    name: str = ""


class Context(Struct, frozen=True):
    """What all routes need. `app` is the caller's, where it has one of its own."""

    app: Penstock
    settings: GatewaySettings
    tasks: Callables
    readiness: Readiness
    draining: Callable[[], bool]
    answered: Answered
    schemes: Mapping[str, Mapping[str, str]]
    """How callers sign in, as OpenAPI has it."""


Handler = Callable[[Context, Asked], Plan[Answer]]


class Open(Struct, frozen=True):
    """A handler for everybody, without a token: it must cost next to nothing."""

    handler: Handler


Routes = Mapping[tuple[str, ...], Mapping[str, Handler | Open]]
"""By the parts of a path, where `*` is any one, and the method."""
NOBODY = Caller("", Scopes())


class Gateway:
    """Thread-safe; one for each app. It opens the app's engine at the first request that needs it."""

    def __init__(
        self,
        app: Penstock,
        authenticate: Authenticate,
        settings: GatewaySettings,
        routes: Routes,
    ) -> None:
        own_users = isinstance(authenticate, BrokerUsers)  # who have connections of their own: it needs none itself
        self._authenticate = authenticate
        self._shares = Shares(settings, app.clock)
        self._routes = routes
        self._seldom = Seldom(app.clock)
        self.draining = False
        """It is about to end."""
        tasks = Callables(app, Scopes(settings.expose))
        readiness = Readiness(partial(knock_at if own_users else ask_of_queue, app))
        schemes = USERS if own_users else TOKENS
        answered = Answered(lambda: self.open)
        self._context = Context(app, settings, tasks, readiness, lambda: self.draining, answered, schemes)

    @property
    def settings(self) -> GatewaySettings:
        return self._context.settings

    def change(self, settings: GatewaySettings) -> None:
        """From the next request on. Those that are begun go on by the former ones."""
        tasks = Callables(self._context.app, Scopes(settings.expose))
        self._shares.settings = settings
        self._context = replace(self._context, settings=settings, tasks=tasks)

    def answer(self, request: Request) -> Plan[Answer]:
        """Never raises for what a client did: what goes wrong is an answer, too."""
        context = self._context
        problem = ""
        with ExitStack() as after:
            caller = NOBODY
            try:
                answer = preflight(request, context.settings)
                if answer is None:
                    handler, name = self._handler(request)
                    if isinstance(handler, Open):
                        handler = handler.handler
                    else:
                        found = self._authenticate(request)
                        caller = (yield found) if isinstance(found, Step) else found
                        after.callback(caller.leave)
                        after.callback(self._shares.leave, self._shares.enter(caller.name))
                        if caller.app is not None:
                            context = replace(context, app=caller.app)
                    answer = yield from handler(context, Asked(request, caller, name))
            except Exception as error:
                refused = self._refused(request, caller, error)
                answer, problem = problem_answer(refused), refused.code
            if answer.events is not None:
                answer.over = after.pop_all().close
        context.answered.add(answer.status, problem)
        return finished(answer, request, context.settings)

    def _refused(self, request: Request, caller: Caller, error: Exception) -> Refused:
        if caller.app is not None and isinstance(error, AccessRefused):
            return Refused(403, "forbidden", str(error))  # its own connection's: it may hear which right it lacks
        refused = refusal(error)
        if refused is None:
            log.exception("%s %r failed", request.method, request.path[:200])
            return UNEXPECTED
        if refused.status == 429 and caller is not NOBODY:
            more = self._seldom.again(f"share {caller.name}")
            if more is not None:
                log.warning("client %r is refused: %s%s", caller.name, refused.detail, more)
        if refused.status in (502, 503) and not isinstance(error, Refused):
            kind = type(error).__name__
            more = self._seldom.again(f"{kind} {getattr(error, 'queue', '')}")
            if more is not None:
                log.warning("%s %r: %s: %s%s", request.method, request.path[:200], kind, error, more)
        return refused

    @property
    def open(self) -> int:
        """Requests that are begun."""
        return self._shares.open

    def _handler(self, request: Request) -> tuple[Handler | Open, str]:
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
