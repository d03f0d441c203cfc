"""A shop that writes receipts in the background: Pyramid takes orders, a worker does the rest. Needs Pyramid.

    python pyramid_shop.py                            curl -d customer=ada localhost:6543/orders
    penstock -A pyramid_shop worker                   in another terminal; then curl localhost:6543/receipts/ID

The task has a request, as a view has: it makes URLs, reads settings, and its finished callbacks are called.
"""

from __future__ import annotations

from typing import Any
from wsgiref.simple_server import make_server

from pyramid.config import Configurator
from pyramid.httpexceptions import HTTPNotFound
from pyramid.threadlocal import get_current_request

from penstock import State
from penstock.contrib.pyramid import PyramidPenstock
from penstock.gateway import WsgiBackPressure

app = PyramidPenstock("pyramid_shop")


@app.task
def write_receipt(customer: str) -> str:
    request = get_current_request()
    return f"{request.registry.settings['shop']} thanks {customer}; orders: {request.route_path('orders')}"


def take_order(request: Any) -> dict[str, str]:
    request.response.status_code = 202
    return {"receipt": write_receipt.delay(request.POST["customer"]).id}


def show_receipt(request: Any) -> dict[str, Any]:
    result = request.penstock.AsyncResult(request.matchdict["id"])
    if result.state is State.UNKNOWN:
        raise HTTPNotFound
    return {"state": result.state, "receipt": result.result if result.successful() else None}


def main(**settings: Any) -> Any:
    with Configurator(settings={"shop": "The Shop", "penstock.task_time_limit": 60.0, **settings}) as config:
        config.include(app.includeme)
        config.add_route("orders", "/orders", request_method="POST")
        config.add_route("receipt", "/receipts/{id}")
        config.add_view(take_order, route_name="orders", renderer="json")
        config.add_view(show_receipt, route_name="receipt", renderer="json")
        return config.make_wsgi_app()


site = main()

if __name__ == "__main__":
    make_server("127.0.0.1", 6543, WsgiBackPressure(site)).serve_forever()
