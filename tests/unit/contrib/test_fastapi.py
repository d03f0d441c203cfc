"""The lifespan for Starlette, the dependencies for FastAPI, and their example."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from penstock import BrokerError, ConfigError, Penstock, Queue
from penstock.contrib.fastapi import App, Result
from penstock.contrib.starlette import app_of, lifespan

EXAMPLE = Path(__file__).parents[3] / "examples/fastapi_shop.py"


def depths_of(queue: Penstock) -> FastAPI:
    site = FastAPI(lifespan=lifespan(queue))

    @site.get("/depth")
    async def depth(app: App) -> int | None:
        return await app.engine.arun(app.engine.broker.depth("default"))

    @site.get("/results/{task_id}")
    async def state(result: Result) -> str:
        return (await result.areport()).state

    return site


def test_the_queue_is_open_while_the_application_is(tmp_path: Path) -> None:
    queue = Penstock("shop", broker=f"sqlite:///{tmp_path / 'queue.db'}")
    task = queue.task(name="nothing")(lambda: None)
    for depth in (0, 1):
        with TestClient(depths_of(queue)) as client:
            assert queue._engine is not None
            assert client.get("/depth").json() == depth
            result = task.delay()
            assert client.get(f"/results/{result.id}").json() == "PENDING"
        assert queue._engine is None


def test_results_of_nobody_are_not_found() -> None:
    with TestClient(depths_of(Penstock("shop", broker="memory://"))) as client:
        for unknown in ("nothing", "x" * 500, "%0A"):
            assert client.get(f"/results/{unknown}").status_code == 404


def test_starlette_has_it_in_the_state_of_a_request() -> None:
    async def name(request: Request) -> JSONResponse:
        return JSONResponse(app_of(request).name)

    site = Starlette(routes=[Route("/", name)], lifespan=lifespan(Penstock("shop", broker="memory://")))
    with TestClient(site) as client:
        assert client.get("/").json() == "shop"
    with pytest.raises(ConfigError, match="lifespan"):
        TestClient(site).get("/")


def test_a_test_may_put_another_in_its_place() -> None:
    site, other = depths_of(Penstock("shop", broker="memory://")), Penstock("other", broker="memory://")
    other.task(name="nothing")(lambda: None).delay()
    site.dependency_overrides[app_of] = lambda: other
    assert TestClient(site).get("/depth").json() == 1
    other.close()


def test_a_broker_that_is_not_there_is_seen_at_the_start(tmp_path: Path) -> None:
    queue = Penstock("shop", broker=f"sqlite:///{tmp_path / 'nowhere' / 'queue.db'}")
    with pytest.raises(BrokerError), TestClient(depths_of(queue)):
        pass


def test_the_example_writes_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "setup.cfg").touch()  # a project of its own, with a queue of its own
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_BROKER_URL", raising=False)
    import fastapi_shop

    fastapi_shop.app.configure(task_queues=[Queue("default", max_length=1)])
    try:
        with TestClient(fastapi_shop.site) as client:
            sent: Any = client.post("/orders", json={"customer": "ada"})
            assert sent.status_code == 202
            place = f"/receipts/{sent.json()['receipt']}"
            assert client.get(place).json() == {"state": "PENDING", "receipt": None}
            assert client.post("/orders", json={"customer": ""}).status_code == 422
            assert client.get("/receipts/nonsense").status_code == 404
            call = "/jobs/v1/tasks/fastapi_shop.write_receipt"
            assert client.post(call, json={"args": [{"customer": "eve"}]}).status_code == 401
            assert client.post("/orders", json={"customer": "bob"}).status_code == 503
            command = [sys.executable, "-m", "penstock.cli", "-A", "fastapi_shop", "worker", "--burst", "-c", "1"]
            subprocess.run(command, env={**os.environ}, check=True, capture_output=True, timeout=60)
            assert client.get(place).json() == {"state": "SUCCESS", "receipt": "Thank you, ada!"}
    finally:
        sys.modules.pop("fastapi_shop")
