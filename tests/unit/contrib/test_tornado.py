"""The mixin for Tornado's handlers, by its example."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from penstock import Queue

EXAMPLE = Path(__file__).parents[3] / "examples/tornado_shop.py"

Fetch = Callable[..., Coroutine[Any, Any, HTTPResponse]]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "setup.cfg").touch()  # a project of its own, with a queue of its own
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_BROKER_URL", raising=False)
    import tornado_shop

    yield tornado_shop
    tornado_shop.app.close()
    sys.modules.pop("tornado_shop")


def serve(site: Application, talk: Callable[[Fetch], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        socket, port = bind_unused_port()
        server, client = HTTPServer(site), AsyncHTTPClient(force_instance=True)
        server.add_socket(socket)

        async def fetch(path: str, **request: Any) -> HTTPResponse:
            return await client.fetch(f"http://127.0.0.1:{port}{path}", raise_error=False, **request)

        try:
            await talk(fetch)
        finally:
            client.close()
            server.stop()
            await server.close_all_connections()

    asyncio.run(run())


def test_the_example_writes_receipts(shop: Any) -> None:
    async def talk(fetch: Fetch) -> None:
        sent = await fetch("/orders", method="POST", body="customer=ada")
        assert sent.code == 202
        place = f"/receipts/{json.loads(sent.body)['receipt']}"
        assert json.loads((await fetch(place)).body) == {"state": "PENDING", "receipt": None}
        for unknown in ("nonsense", "x" * 500):
            assert (await fetch(f"/receipts/{unknown}")).code == 404
        command = [sys.executable, "-m", "penstock.cli", "-A", "tornado_shop", "worker", "--burst", "-c", "1"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=60)
        assert json.loads((await fetch(place)).body) == {"state": "SUCCESS", "receipt": "Thank you, ada!"}

    serve(shop.site(), talk)


def test_a_full_queue_is_told(shop: Any, caplog: pytest.LogCaptureFixture) -> None:
    shop.app.configure(task_queues=[Queue("default", max_length=1)])

    async def talk(fetch: Fetch) -> None:
        codes = [await fetch("/orders", method="POST", body="customer=ada") for _ in range(2)]
        assert [one.code for one in codes] == [202, 503]
        assert int(codes[1].headers["Retry-After"]) >= 1

    serve(shop.site(), talk)
    assert "QueueFull" not in caplog.text


def test_an_application_without_an_app_is_told(shop: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(fetch: Fetch) -> None:
        assert (await fetch("/receipts/1")).code == 500

    serve(Application([("/receipts/(.+)", shop.Receipts)]), talk)
    assert "Application(…, penstock=app)" in caplog.text
