"""The private servers answer, and lose nothing they confirmed when they are killed."""

import signal
from pathlib import Path

import redis

from tests.servers import redis_server


def test_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping() is True


def test_redis_keeps_a_write_through_a_kill(redis_url: str, tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
        server.stop(signal.SIGKILL)
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"yes"
