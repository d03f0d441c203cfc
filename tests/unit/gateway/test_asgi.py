"""What only the ASGI face does: slow and vanished clients, draining, and being mounted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

from penstock import Penstock
from penstock.gateway import AsgiGateway
from tests.unit.gateway.conftest import with_tasks
from tests.unit.gateway.faces import Face, Reply, http_scope, over_asgi

JSON = {"content-type": "application/json"}
BODY = json.dumps({"args": [1]}).encode()


@pytest.fixture
def app(penstock_app: Penstock) -> Penstock:
    return with_tasks(penstock_app)


def gateway(app: Penstock, **settings: Any) -> AsgiGateway:
    return Face("asgi", app, **settings).asgi


class Client:
    """A client that says and hears one thing after the other."""

    def __init__(self, *messages: MutableMapping[str, Any]) -> None:
        self._said: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        for message in messages:
            self.say(message)
        self.heard: list[MutableMapping[str, Any]] = []
        self.something = asyncio.Event()

    def say(self, message: MutableMapping[str, Any]) -> None:
        self._said.put_nowait(message)

    def leave(self) -> None:
        self.say({"type": "http.disconnect"})

    async def ask(self, app: AsgiGateway, method: str, path: str, query: str = "") -> None:
        async def send(message: MutableMapping[str, Any]) -> None:
            self.heard.append(message)
            self.something.set()

        await app(http_scope(method, path, query, JSON), self._said.get, send)

    @property
    def reply(self) -> Reply:
        head, *parts = self.heard
        headers = {name.decode(): value.decode() for name, value in head["headers"]}
        return Reply(head["status"], headers, b"".join(part["body"] for part in parts))


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if happened():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("not within 20 s")


def said(body: bytes, more: bool = False) -> MutableMapping[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_that_does_not_come_is_not_waited_for(app: Penstock) -> None:
    async def run() -> Reply:
        client = Client(said(b'{"args"', more=True))
        await client.ask(gateway(app, body_timeout=0.05), "POST", "/v1/tasks/tasks.add")
        return client.reply

    reply = asyncio.run(run())
    assert (reply.status, reply.headers["connection"]) == (408, "close")


def test_a_body_in_parts_is_bounded_as_it_comes(app: Penstock) -> None:
    async def run(parts: list[bytes]) -> Reply:
        client = Client(*(said(part, more=True) for part in parts), said(b""))
        await client.ask(gateway(app, max_body=20), "POST", "/v1/tasks/tasks.add")
        return client.reply

    assert asyncio.run(run([BODY[:4], BODY[4:]])).status == 202
    reply = asyncio.run(run([b"x" * 15, b"x" * 15]))
    assert (reply.status, reply.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("first", [[], [said(b"{", more=True)]])
def test_who_leaves_in_the_middle_leaves_nothing(app: Penstock, first: list[Any]) -> None:
    async def run() -> Client:
        client = Client(*first)
        client.leave()
        await client.ask(served, "POST", "/v1/tasks/tasks.add")
        return client

    served = gateway(app)
    assert asyncio.run(run()).heard == []
    assert served.gateway.open == 0


def test_who_leaves_while_it_waits_is_forgotten(app: Penstock) -> None:
    async def run() -> None:
        client = Client(said(BODY))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(client.ask(served, "POST", "/v1/tasks/tasks.add", "wait=40"))
            await until(lambda: len(served._waits) == 1)
            assert served.gateway.open == 1
            client.leave()

    served = gateway(app)
    asyncio.run(run())
    assert served.gateway.open == 0


def test_who_leaves_a_stream_is_forgotten(app: Penstock) -> None:
    async def run() -> None:
        task_id = app.send_task("tasks.add", (1,))  # in this loop's thread, in memory
        client = Client(said(b""))
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(client.ask(served, "GET", f"/v1/tasks/{task_id.id}/events"))
            while len(client.heard) < 2:
                client.something.clear()
                await client.something.wait()
            assert served.gateway.open == 1
            client.leave()

    served = gateway(app)
    asyncio.run(run())
    assert served.gateway.open == 0


def test_draining_answers_who_waits(app: Penstock) -> None:
    async def run() -> tuple[Client, Client]:
        one, two = Client(said(BODY)), Client(said(b""))
        task_id = app.send_task("tasks.add", (1,)).id
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            tasks.create_task(one.ask(served, "POST", "/v1/tasks/tasks.add", "wait=40"))
            tasks.create_task(two.ask(served, "GET", f"/v1/tasks/{task_id}/events"))
            await until(lambda: len(served._waits) == 2)
            served.drain()
        after = Client(said(BODY))
        async with asyncio.timeout(20):
            await after.ask(served, "POST", "/v1/tasks/tasks.add", "wait=40")
        assert after.reply.status == 202
        return one, two

    served = gateway(app)
    one, two = asyncio.run(run())
    assert one.reply.status == 202
    assert two.heard[-1] == {"type": "http.response.body", "body": b""}


def test_it_can_be_mounted(app: Penstock) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    site = Starlette(routes=[Mount("/jobs", app=gateway(app))])
    reply = asyncio.run(over_asgi(site, "POST", "/jobs/v1/tasks/tasks.add", "", BODY, JSON))
    assert reply.status == 202
    there = reply.headers["location"]
    assert there == f"/jobs/v1/tasks/{reply.json['id']}"
    assert asyncio.run(over_asgi(site, "GET", there)).status == 200
    assert asyncio.run(over_asgi(site, "GET", "/v1/info")).status == 404


def test_other_kinds_of_connections_are_answered(app: Penstock) -> None:
    async def run() -> list[Any]:
        heard: list[Any] = []
        coming = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

        async def receive() -> Any:
            return coming.pop()

        async def send(message: Any) -> None:
            heard.append(message["type"])

        await gateway(app)({"type": "lifespan"}, receive, send)
        await gateway(app)({"type": "websocket"}, receive, send)
        return heard

    assert asyncio.run(run()) == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
