"""Tasks in Flask's application context, and its example."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, current_app, g

from penstock import ConfigError, Penstock, Queue, QueueFull
from penstock.contrib.flask import FlaskPenstock
from penstock.contrib.rehearsal import rehearse

EXAMPLE = Path(__file__).parents[3] / "examples/flask_shop.py"


def flask_of(name: str = "shop", **config: Any) -> Flask:
    made = Flask(name)
    made.config.update(config)
    return made


def test_settings_come_from_the_config() -> None:
    flask = flask_of(PENSTOCK_TASK_TIME_LIMIT=60, SECRET_KEY="no setting of ours")
    queue = FlaskPenstock("shop", flask, lease=20)
    assert (queue.conf.task_time_limit, queue.conf.lease) == (60, 20)
    assert flask.extensions["penstock"] is queue
    with pytest.raises(ConfigError, match="PENSTOCK_TASK_TIME_LIMITS"):
        FlaskPenstock("shop").init_app(flask_of(PENSTOCK_TASK_TIME_LIMITS=60))


def test_a_task_has_a_context_of_its_own() -> None:
    queue = FlaskPenstock("shop")
    ended: list[Any] = []

    @queue.task(name="look")
    def look() -> str:
        assert "seen" not in g
        g.seen = True
        return current_app.name

    @queue.task(name="await")
    async def awaits() -> str:
        await asyncio.sleep(0)
        return current_app.name

    @queue.task(name="fail")
    def fail() -> None:
        raise KeyError

    flask = flask_of("site")
    flask.teardown_appcontext(lambda _: ended.append("seen" in g))
    queue.init_app(flask)
    with rehearse(queue) as rehearsal, flask.app_context():
        g.seen = True
        results = [look.delay(), look.delay()]
        rehearsal.run_all()
        assert [result.get() for result in results] == ["site"] * 2
        assert ended[:2] == [True, True]
        before = len(ended)
        fail.delay()
        rehearsal.run_all()
        assert len(ended) == before + 1
    with rehearse(queue) as rehearsal:
        awaited = awaits.delay()
        rehearsal.run_all()
        assert awaited.get() == "site"
    with pytest.raises(RuntimeError, match="context"):
        current_app.name  # noqa: B018


def test_other_middleware_is_inside_the_context() -> None:
    seen = []

    def around(_: object, call: Any) -> Any:
        seen.append(current_app.name)
        return call()

    queue = FlaskPenstock("shop", flask_of("site"), running=[around])
    with rehearse(queue) as rehearsal:
        queue.task(name="nothing")(lambda: None).delay()
        rehearsal.run_all()
    assert seen == ["site"]


def test_without_an_application_nothing_runs() -> None:
    queue = FlaskPenstock("shop")
    with rehearse(queue) as rehearsal:
        result = queue.task(name="nothing")(lambda: None).delay()
        rehearsal.run_all()
        with pytest.raises(ConfigError, match="call init_app"):
            result.get()


def test_a_factory_may_be_called_again_while_the_app_is_at_work() -> None:
    queue = FlaskPenstock("shop", flask_of(PENSTOCK_BROKER_URL="memory://"))
    queue.task(name="nothing")(lambda: None).delay()
    second = flask_of("second", PENSTOCK_BROKER_URL="memory://")
    queue.init_app(second)
    assert second.extensions["penstock"] is queue
    with pytest.raises(ConfigError, match="at work"):
        queue.init_app(flask_of(PENSTOCK_BROKER_URL="memory://other"))
    queue.close()


def test_the_example_sends_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "setup.cfg").touch()  # a project of its own, with a queue of its own
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PENSTOCK_BROKER_URL", raising=False)
    import flask_shop

    app: Penstock = flask_shop.queue
    try:
        client = flask_shop.app.test_client()
        sent = client.post("/orders", data={"customer": "ada"}).get_json()["receipt"]
        assert client.get(f"/receipts/{sent}").get_json() == {"state": "PENDING", "receipt": None}
        assert client.get("/receipts/nonsense").status_code == 404
        command = [sys.executable, "-m", "penstock.cli", "-A", "flask_shop", "worker", "--burst", "-c", "1"]
        subprocess.run(command, cwd=tmp_path, env={**os.environ}, check=True, capture_output=True, timeout=60)
        receipt = {"state": "SUCCESS", "receipt": "The Shop thanks ada"}
        assert client.get(f"/receipts/{sent}").get_json() == receipt
    finally:
        app.close()
        sys.modules.pop("flask_shop")


def test_a_full_queue_asks_to_come_again_unless_the_application_knows_better() -> None:
    queue = FlaskPenstock("shop", broker="memory://", task_queues=[Queue("default", 1)])
    queue.task(name="t")(lambda: None)

    def site(flask: Flask) -> Any:
        queue.init_app(flask)
        flask.add_url_rule("/orders", view_func=lambda: queue.send_task("t").id, methods=["POST"])
        return flask.test_client()

    client = site(flask_of())
    assert client.post("/orders").status_code == 200
    refused = client.post("/orders")
    assert (refused.status_code, refused.mimetype) == (503, "text/plain")
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.text.startswith("queue 'default' is full")
    own = flask_of()
    own.register_error_handler(QueueFull, lambda error: ("mine", 429))
    assert site(own).post("/orders").status_code == 429
    queue.close()
