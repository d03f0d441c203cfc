"""What a server's configuration is worth."""

import pytest

from penstock.engines.redis.greeting import info, judge
from penstock.engines.redis.scripts import BOUNDED, READING, VERBS, load


@pytest.mark.parametrize(
    ("config", "found", "durability", "about"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, {}, "power", ""),
        ({"appendonly": "yes", "appendfsync": "everysec"}, {}, "process", "appendfsync always"),
        ({"appendonly": "yes", "appendfsync": "no"}, {}, "process", "half minute"),
        ({"appendonly": "no", "appendfsync": "always"}, {}, "memory", "appendonly yes"),
        ({}, {"aof_enabled": "1"}, None, "CONFIG is forbidden"),
        ({}, {"aof_enabled": "0"}, "memory", "appendonly yes"),
    ],
)
def test_durability(config: dict[str, str], found: dict[str, str], durability: str | None, about: str) -> None:
    level, weakness = judge(config, found)
    assert level == durability
    assert about in weakness
    assert bool(weakness) == (level != "power")


def test_info() -> None:
    assert info(b"# Server\r\nredis_version:7.0.15\r\nslave0:ip=::1,port=2\r\n\r\n") == {
        "redis_version": "7.0.15",
        "slave0": "ip=::1,port=2",
    }


@pytest.mark.parametrize("version", [(6, 2), (7, 0), (8, 0)])
def test_only_new_work_is_refused_when_memory_is_full(version: tuple[int, ...]) -> None:
    loaded = load(version)
    assert set(loaded) == set(VERBS)
    for verb, script in loaded.items():
        first = script.text.splitlines()[0]
        allowed = b"allow-oom" in first or b":none" in first
        assert allowed == (verb not in BOUNDED | READING)
