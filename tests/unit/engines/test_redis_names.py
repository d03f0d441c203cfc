"""Names from outside as parts of keys, and ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.redis.names import Lanes, Mint, check_id, queue_key, queue_names
from penstock.errors import ConfigError

ANY = st.text(st.characters(exclude_categories=[]))


@given(ANY, ANY)
def test_a_queue_comes_back_from_its_key(namespace: str, queue: str) -> None:
    key = queue_key(namespace, queue)
    assert key.count("/") == 1
    assert not set(key) & set(" :{}*\n\0")
    assert queue_names(key.encode()) == (namespace, queue)


@given(ANY, ANY, ANY)
def test_a_lane_names_its_queue(namespace: str, queue: str, partition: str) -> None:
    lane = Lanes().key(namespace, queue, 7, partition)
    assert lane.count(b"/") == 3
    assert b" " not in lane
    assert queue_names(lane) == (namespace, queue)


def test_names_that_could_meet_do_not() -> None:
    assert queue_key("a/b", "c") != queue_key("a", "b/c")
    assert queue_key("a%2Fb", "c") != queue_key("a/b", "c")
    lanes = Lanes()
    assert lanes.key("", "q/5", 5, "") != lanes.key("", "q", 5, "5/")


def test_lanes_are_not_kept_for_ever() -> None:
    lanes = Lanes()
    for number in range(30_000):
        lanes.key("", "q", 5, str(number))
    assert len(lanes._known) <= 10_000


def test_ids_are_all_different_and_as_short_as_lua_likes() -> None:
    mint = Mint()
    ids = [mint() for _ in range((1 << 20) + 10)]
    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) == 31
    assert ids[0][:26] != ids[-1][:26], "a new prefix when the count is used up"
    assert Mint()()[:26] != Mint()()[:26]


@pytest.mark.parametrize("task_id", ["", "x" * 513, "é" * 257, "\ud800"])
def test_bad_ids(task_id: str) -> None:
    with pytest.raises(ConfigError):
        check_id(task_id)


def test_any_other_text_is_an_id() -> None:
    check_id("with spaces, {braces} and \n lines")
