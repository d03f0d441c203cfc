"""URLs of Redis servers, good and bad; none shows its password."""

from pathlib import Path

import pytest

from penstock.engines.redis.settings import read_settings
from penstock.errors import ConfigError


def test_a_full_url() -> None:
    found = read_settings("redis://bob:s%40crets@one:7000,two/3?prefix=mine&wait=2&wait_timeout=0.5&read=replica")
    assert found.address.hosts == (("one", 7000), ("two", 6379))
    assert (found.address.user, found.address.password, found.database) == ("bob", "s@crets", 3)
    assert (found.prefix, found.wait, found.wait_timeout, found.read_replica) == ("{mine}", 2, 0.5, True)
    assert found.public == "redis://bob@one:7000,two:6379/3"


def test_defaults() -> None:
    found = read_settings("redis://")
    assert (found.address.hosts, found.database, found.prefix) == ((("localhost", 6379),), 0, "{penstock}")
    assert (found.durability, found.wait, found.tls, found.socket, found.master) == ("power", 0, False, None, None)


def test_unix_and_sentinel_and_tls(tmp_path: Path) -> None:
    socket = read_settings("unix://:pw@/run/redis.sock?db=2")
    assert (socket.socket, socket.database, socket.public) == ("/run/redis.sock", 2, "unix:///run/redis.sock")
    sentinel = read_settings("sentinel://a,b:27000/boss/4?sentinel_password=x")
    assert (sentinel.master, sentinel.database) == ("boss", 4)
    assert sentinel.address.hosts == (("a", 26379), ("b", 27000))
    assert sentinel.sentinel_login == (None, "x")
    ca = tmp_path / "ca.pem"
    ca.touch()
    tls = read_settings(f"rediss://host?ca={ca}")
    assert (tls.tls, tls.ca) == (True, str(ca))


def test_the_url_goes_before_the_settings() -> None:
    assert read_settings("redis://?durability=strict", durability="process").durability == "strict"


@pytest.mark.parametrize(
    ("url", "about"),
    [
        ("redis://bob:hidden@host/x", "database"),
        ("redis://bob:hidden@host/-1", "database"),
        ("redis://bob:hidden@host/٣", "database"),
        ("redis://bob:hidden@host?db=1x", "database"),
        ("redis://bob:hidden@host:99999/0", "host and port"),
        ("redis://bob:hidden@host?wiat=1", "did you mean 'wait'"),
        ("redis://bob:hidden@host?wait=-1", "wait"),
        ("redis://bob:hidden@host?timeout=0", "timeout"),
        ("redis://bob:hidden@host?timeout=soon", "timeout"),
        ("redis://bob:hidden@host?prefix=a}{b", "prefix"),
        ("redis://bob:hidden@host?prefix=", "prefix"),
        ("redis://bob:hidden@host?durability=hope", "durability"),
        ("redis://bob:hidden@host?read=whoever", "read"),
        ("rediss://bob:hidden@host?ca=/no/such/file", "ca"),
        ("sentinel://bob:hidden@host", "name the master"),
    ],
)
def test_bad_urls(url: str, about: str) -> None:
    with pytest.raises(ConfigError, match=about.replace("?", r"\?")) as caught:
        read_settings(url)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "weak"),
    [
        ("redis://a/0", False),
        ("redis://a,b/0", True),
        ("redis://a,b/0?wait=1", False),
        ("sentinel://a/boss", True),
        ("sentinel://a/boss?wait=1", False),
    ],
)
def test_what_a_failover_can_lose_is_said_with_its_remedy(url: str, weak: bool) -> None:
    assert ("?wait=1" in read_settings(url).weakness) == weak
