"""The private servers answer, and lose nothing they confirmed when they are killed."""

import signal
from pathlib import Path

import pytest
import redis

from tests.servers import postgres_server, redis_server
from tests.servers.postgres_node import run_postgres


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


def ask(url: str, query: str, folder: Path) -> str:
    return run_postgres("psql", url, "-X", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", query, folder=folder).strip()


def test_postgres_answers_to_a_user_with_a_password(postgres_url: str) -> None:
    assert ask(postgres_url, "SELECT current_user, current_setting('fsync')", Path("/")) == "penstock|on"
    with pytest.raises(RuntimeError, match="password authentication failed"):
        ask(postgres_url.replace(":secret@", ":wrong@"), "SELECT 1", Path("/"))


def test_postgres_keeps_a_commit_through_a_kill(tmp_path: Path) -> None:
    with postgres_server(tmp_path, "-c", "autovacuum=off") as server:
        ask(server.url, "CREATE TABLE kept (n integer); INSERT INTO kept VALUES (1)", Path("/"))
        server.stop(signal.SIGKILL)
        server.start()
        assert ask(server.url, "SELECT n FROM kept", Path("/")) == "1"
        assert ask(server.admin_url, "SHOW autovacuum", Path("/")) == "off"
