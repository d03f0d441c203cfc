"""`python -m bench.gateway`: how many calls a second the gateway accepts, beside a bare endpoint that commits one row.

Both are served by uvicorn with httptools, and asked by the same client, in turns, so that a busy machine is busy for
both. Durable means the same for both: what is answered is synced.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

BODY = json.dumps({"args": [1, 2]}).encode()
ROUNDS, SECONDS = 11, 1.0
"""Many short ones: the median of them forgives what else the machine does."""
CLIENTS = (1, 32)
FLOOR = 0.6
"""Of what the bare endpoint accepts."""
TASKS = """
from penstock import Penstock

app = Penstock("tasks", broker="sqlite:///queue.db")


@app.task(name="tasks.add")
def add(x: int, y: int) -> int:
    return x + y
"""
BARE = """
import apsw, json, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

db = apsw.Connection("bare.db")
db.execute("PRAGMA journal_mode = WAL").fetchall()
db.execute("PRAGMA synchronous = FULL")
db.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, name, body)")


async def call(request):
    body = await request.json()
    with db:
        db.execute("INSERT INTO job (name, body) VALUES (?, ?)", (request.path_params["name"], json.dumps(body)))
    return JSONResponse({"id": db.last_insert_rowid()}, 202)


site = Starlette(routes=[Route("/v1/tasks/{name}", call, methods=["POST"])])
uvicorn.run(site, port=0, http="httptools", log_level="info", access_log=False)
"""


class Asking(asyncio.Protocol):
    """One client that asks again as soon as it is answered, until the end."""

    def __init__(self, request: bytes, end: float) -> None:
        self._request, self._end = request, end
        self._heard = b""
        self.accepted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, blank, body = self._heard.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if not blank or length is None or len(body) < int(length[1]):
            return
        if not head.startswith(b"HTTP/1.1 202"):
            raise SystemExit(f"refused: {self._heard!r}")
        self._heard = b""
        self.accepted += 1
        if time.monotonic() < self._end:
            self._transport.write(self._request)
        else:
            self._transport.close()


async def rate(port: int, clients: int, token: str, seconds: float) -> float:
    """Accepted calls a second."""
    loop = asyncio.get_running_loop()
    head = f"POST /v1/tasks/tasks.add HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    end = time.monotonic() + seconds
    made = [
        await loop.create_connection(lambda: Asking(head.encode() + BODY, end), "127.0.0.1", port)
        for _ in range(clients)
    ]
    await asyncio.sleep(seconds + 0.3)
    return sum(asking.accepted for _, asking in made) / seconds


def port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"http://127.0.0.1:(\d+)", line)
        if found:
            return int(found[1])
    raise SystemExit("a server did not start")


Rates = list[tuple[float, float]]
"""Calls a second of the gateway and of the bare endpoint, of each round."""


def compare(rounds: int, seconds: float) -> Iterator[tuple[int, Rates]]:
    """For a lone client, and for many: what was accepted."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tasks.py").write_text(TASKS)
        penstock = [sys.executable, "-m", "penstock.cli"]
        add = [*penstock, "gateway", "token", "add", "bench", "--scope", "call:*", "--tokens", "t.json"]
        token = subprocess.run(add, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
        commands = (
            [*penstock, "-A", "tasks", "gateway", "--port", "0", "--tokens", "t.json"],
            [sys.executable, "-c", BARE],
        )
        servers = [subprocess.Popen(one, cwd=folder, stderr=subprocess.PIPE, text=True) for one in commands]
        try:
            gateway, bare = (port_of(server) for server in servers)
            for clients in CLIENTS:
                yield (
                    clients,
                    [
                        (
                            asyncio.run(rate(gateway, clients, token, seconds)),
                            asyncio.run(rate(bare, clients, "", seconds)),
                        )
                        for _ in range(rounds)
                    ],
                )
        finally:
            for server in servers:
                server.terminate()
                server.communicate()


def main() -> None:
    for clients, pairs in compare(ROUNDS, SECONDS):
        ratios = sorted(one / other for one, other in pairs)
        kept = "" if statistics.median(ratios) >= FLOOR else f": BELOW {FLOOR}"
        print(
            f"{clients:2} clients: gateway {statistics.median(one for one, _ in pairs):,.0f}/s, bare "
            f"{statistics.median(other for _, other in pairs):,.0f}/s; ratio {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} … {ratios[-1]:.2f}){kept}; load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    main()
