"""How many commands a server gets in so many seconds, from whoever is connected."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import time
from pathlib import Path

import asyncpg


def redis(port: int, seconds: float) -> int:
    """As MONITOR tells them, without those that a script runs inside of the server."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"MONITOR\r\n")
        told, deadline = b"", time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                told += connection.recv(1 << 16)
            except TimeoutError:
                break
    return sum(b" lua] " not in line for line in told.splitlines()[1:])


def postgres(admin_url: str, log: Path, seconds: float) -> int:
    """As the log tells them while all statements are logged."""
    asyncio.run(_log_statements(admin_url, "all"))
    before = log.stat().st_size
    time.sleep(seconds)
    with log.open() as lines:
        lines.seek(before)
        told = lines.read()
    asyncio.run(_log_statements(admin_url, "none"))
    return len(re.findall(r"LOG:  (?:statement|execute [^:]*): ", told))


async def _log_statements(admin_url: str, which: str) -> None:
    connection = await asyncpg.connect(admin_url)
    await connection.execute(f"ALTER SYSTEM SET log_statement = '{which}'")
    await connection.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)
    await connection.close()


def rabbitmq(port: int, seconds: float) -> int:
    """Packets with data that clients sent to it, as the kernel counts them: it has no log of methods."""
    before = _sent_to(port)
    time.sleep(seconds)
    return sum(count - before.get(connection, 0) for connection, count in _sent_to(port).items())


def _sent_to(port: int) -> dict[str, int]:
    """Data segments, by connection."""
    told = subprocess.run(
        ["ss", "-tinHO", "dst", f"127.0.0.1:{port}"], capture_output=True, text=True, check=True
    ).stdout
    counts = {}
    for line in told.splitlines():
        found = re.search(r"data_segs_out:(\d+)", line)
        counts[line.split()[3]] = int(found[1]) if found else 0
    return counts
