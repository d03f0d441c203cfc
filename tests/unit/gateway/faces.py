"""Both faces of one gateway, asked without a server."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

from penstock import Penstock
from penstock.gateway import Caller, GatewaySettings, Request, asgi_app, wsgi_app
from penstock.gateway.gateway import Authenticate
from penstock.gateway.scopes import EVERYTHING, Scopes, read_scopes


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fields(self) -> list[str]:
        return [error["field"] for error in self.json["errors"]]


class Face:
    """Asks as one caller, whose scopes may be changed; or as whoever `lets_in` makes of a request."""

    def __init__(self, kind: str, app: Penstock, lets_in: Authenticate | None = None, **settings: Any) -> None:
        self.kind = kind
        self.scopes: Scopes = EVERYTHING
        self.name = "ada"
        given = GatewaySettings(**settings)
        self.address = "127.0.0.1"
        self.asgi = asgi_app(app, lets_in or self.authenticate, given)
        self.wsgi = wsgi_app(app, lets_in or self.authenticate, given)

    def authenticate(self, request: Request) -> Caller:
        return Caller(self.name, self.scopes)

    def may(self, *scopes: str) -> None:
        self.scopes = read_scopes(scopes)

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, document: object = None, **headers: str) -> Reply:
        return self.ask("POST", path, json.dumps({} if document is None else document).encode(), headers)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        given = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        if body is not None:
            given = {"content-type": "application/json", "content-length": str(len(body))} | given
        path, _, query = path.partition("?")
        if self.kind == "asgi":
            return asyncio.run(over_asgi(self.asgi, method, path, query, body or b"", given, self.address))
        return self._over_wsgi(method, path, query, body or b"", given)

    def _over_wsgi(self, method: str, path: str, query: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": self.address,
            "wsgi.input": io.BytesIO(body),
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
        }
        for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            environ[name] = environ.pop(f"HTTP_{name}", "")
        started: list[Any] = []
        parts = self.wsgi(environ, lambda status, headers: started.append((status, headers)))
        whole = b"".join(parts)
        close = getattr(parts, "close", None)
        if close is not None:
            close()
        [(status, found)] = started
        return Reply(int(status.split()[0]), dict(found), whole)


async def over_asgi(
    app: Any,
    method: str,
    path: str,
    query: str = "",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    address: str = "127.0.0.1",
) -> Reply:
    """One request whose client stays until it is answered."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(http_scope(method, path, query, headers or {}) | {"client": (address, 1)}, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Reply(sent[0]["status"], found, b"".join(message["body"] for message in sent[1:]))


def http_scope(method: str, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
    }
