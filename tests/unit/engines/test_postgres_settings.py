"""The URL and its options; what a server's settings can lose; when a look is the last one."""

import pytest

from penstock.engines.postgres.bells import Horizon
from penstock.engines.postgres.durability import kept, weaknesses
from penstock.engines.postgres.settings import Settings, read_settings
from penstock.errors import ConfigError

SAFE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "synchronous_standby_names": ""}


def read(url: str, durability: str = "power") -> Settings:
    return read_settings(url, queues=(), durability=durability, result_expires=60.0, result_max_bytes=1000)


def test_several_hosts_and_options() -> None:
    found = read("postgresql://me:pass@one:5433,two/app?schema=jobs&durability=strict&read=replica&timeout=2")
    assert found.address.hosts == (("one", 5433), ("two", 5432))
    assert (found.database, found.schema, found.durability, found.replica, found.timeout) == (
        "app", "jobs", "strict", True, 2.0,
    )  # fmt: skip
    assert "pass" not in found.public


def test_the_database_is_the_users_by_default() -> None:
    assert read("postgres://me@one").database == "me"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("schema=Jobs", "lower-case"),
        ("schema=a;b", "lower-case"),
        ("durability=always", "power, process, strict"),
        ("sslmode=yes", "verify-full"),
        ("read=any", "primary, replica"),
        ("timeout=0", "above 0"),
        ("timeout=soon", "above 0"),
        ("shcema=jobs", "schema"),
    ],
)
def test_bad_options_are_named_without_the_password(option: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read(f"postgresql://me:hidden@one/app?{option}")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "hosts", "words"),
    [
        ({"fsync": "off"}, 1, "fsync = on"),
        ({"full_page_writes": "off"}, 1, "full_page_writes = on"),
        ({"synchronous_commit": "off"}, 1, "synchronous_commit"),
        ({}, 2, "synchronous_standby_names"),
        ({"synchronous_standby_names": "ANY 1 (*)", "synchronous_commit": "local"}, 2, "synchronous_standby_names"),
    ],
)
def test_what_can_be_lost_is_said_with_its_remedy(changes: dict[str, str], hosts: int, words: str) -> None:
    [text] = weaknesses({**SAFE, **changes}, hosts)
    assert words in text


def test_a_safe_server_has_no_weakness() -> None:
    assert weaknesses(SAFE, 1) == []
    assert weaknesses({**SAFE, "synchronous_standby_names": "ANY 1 (*)"}, 3) == []


def test_a_look_is_the_last_when_all_that_ran_at_the_first_is_over() -> None:
    horizon = Horizon()
    assert not horizon.settled(oldest=10, newest=15)
    assert not horizon.settled(oldest=14, newest=99)
    assert horizon.settled(oldest=15, newest=99)
    assert Horizon().settled(oldest=7, newest=7)


def test_looks_become_rare() -> None:
    horizon = Horizon()
    assert [horizon.pause() for _ in range(9)][-1] == 0.5


@pytest.mark.parametrize(
    ("changes", "durability"),
    [({}, "power"), ({"fsync": "off"}, "process"), ({"synchronous_commit": "off"}, "process")],
)
def test_what_is_not_flushed_is_not_said_to_survive_a_power_cut(changes: dict[str, str], durability: str) -> None:
    assert kept({**SAFE, **changes}) == durability
