"""A shop that writes receipts in the background, as a plain WSGI application: no framework, and nothing to install.

python wsgi_shop.py                               curl -d ada localhost:8000/orders
penstock -A wsgi_shop worker                      in another terminal; then curl localhost:8000/receipts/ID
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import make_server

from penstock import ConfigError, Penstock, State
from penstock.gateway import WsgiBackPressure

app = Penstock("wsgi_shop")
MOST = 50
"""Bytes of a customer's name."""


@app.task
def write_receipt(customer: str) -> str:
    return f"Thank you, {customer}!"


def answer(environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if (method, path) == ("POST", "/orders"):
        length = min(MOST, int(environ.get("CONTENT_LENGTH") or 0))
        customer = environ["wsgi.input"].read(length).decode("utf-8", "replace")
        return "202 Accepted", {"receipt": write_receipt.delay(customer).id}
    if method == "GET" and path.startswith("/receipts/"):
        try:
            result = write_receipt.AsyncResult(path.removeprefix("/receipts/"))
        except ConfigError:
            return "404 Not Found", {}
        if result.state is not State.UNKNOWN:
            return "200 OK", {"state": result.state, "receipt": result.result if result.successful() else None}
    return "404 Not Found", {}


def shop(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    status, found = answer(environ)
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(found).encode() + b"\n"]


site = WsgiBackPressure(shop)

if __name__ == "__main__":
    make_server("127.0.0.1", 8000, site).serve_forever()
