"""A shop that sends receipts in the background: Flask takes orders, a worker does the rest. Needs Flask.

    flask --app flask_shop run                        curl -d customer=ada localhost:5000/orders
    penstock -A flask_shop worker                     in another terminal; then curl localhost:5000/receipts/ID

The task is in the application's context, as a view is: it reads its config, and what it opens there is closed.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from flask import Flask, abort, current_app, g, request

from penstock import State
from penstock.contrib.flask import FlaskPenstock

queue = FlaskPenstock("flask_shop")


def create_app(**config: Any) -> Flask:
    flask = Flask(__name__)
    flask.config.update(SHOP="The Shop", DATABASE=Path(__file__).with_name("shop.sqlite3"), **config)
    queue.init_app(flask)
    flask.teardown_appcontext(close_database)
    flask.add_url_rule("/orders", view_func=take_order, methods=["POST"])
    flask.add_url_rule("/receipts/<task_id>", view_func=show_receipt)
    return flask


def database() -> sqlite3.Connection:
    """The connection of this request, or of this run of a task."""
    if "database" not in g:
        g.database = sqlite3.connect(current_app.config["DATABASE"])
        g.database.execute("CREATE TABLE IF NOT EXISTS orders (customer TEXT)")
    connection: sqlite3.Connection = g.database
    return connection


def close_database(_: BaseException | None = None) -> None:
    if "database" in g:
        g.pop("database").close()


@queue.task
def send_receipt(order: int) -> str:
    (customer,) = database().execute("SELECT customer FROM orders WHERE rowid = ?", (order,)).fetchone()
    return f"{current_app.config['SHOP']} thanks {customer}"


def take_order() -> dict[str, Any]:
    with database() as transaction:
        order = transaction.execute("INSERT INTO orders VALUES (?)", (request.form["customer"],)).lastrowid
    assert order is not None
    return {"order": order, "receipt": send_receipt.delay(order).id}


def show_receipt(task_id: str) -> dict[str, Any]:
    result = send_receipt.AsyncResult(task_id)
    if result.state is State.UNKNOWN:
        abort(404)
    return {"state": result.state, "receipt": result.result if result.successful() else None}


app = create_app()
