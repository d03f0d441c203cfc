"""Names on the server: of queues, lanes and namespaces, and the path of a delay."""

import pytest

from penstock.engines.rabbitmq import naming
from penstock.errors import ConfigError


def test_a_queue_of_the_default_namespace_is_called_as_it_is() -> None:
    assert naming.queue_name("mail", "") == "mail"
    assert naming.split_name("mail") == ("mail", "")


@pytest.mark.parametrize(("queue", "namespace"), [("a", "b"), ("a/b", ""), ("a/b", "c/d"), ("a", "b%2F")])
def test_names_are_told_apart_again(queue: str, namespace: str) -> None:
    assert naming.split_name(naming.queue_name(queue, namespace)) == (queue, namespace)


@pytest.mark.parametrize("queue", ["mail.dead", "mail.p3", "mail.lanes", "x" * 151, "." * 51])
def test_what_is_ours_or_too_long_is_refused(queue: str) -> None:
    with pytest.raises(ConfigError):
        naming.queue_name(queue, "")


def test_lanes() -> None:
    assert naming.lane_name("mail", 5) == "mail"
    assert naming.split_lane("mail.p9") == ("mail", 9)
    assert naming.split_lane("mail") == ("mail", 5)


def test_a_name_is_one_word_of_a_routing_key() -> None:
    assert naming.word("a.*.#%") == "a%2E%2A%2E%23%25"


@pytest.mark.parametrize("seconds", [0.001, 0.5, 1, 59.99, 3600, 86_400 * 30])
def test_the_waits_on_a_path_add_up_to_the_delay(seconds: float) -> None:
    top, key = naming.delay_path(seconds, "mail")
    *digits, lane = key.split(".")
    levels = [level for level, digit in enumerate(reversed(digits)) if digit == "1"]
    waited = sum(naming.delay_time(level) for level in levels) / 1000
    assert (len(digits), lane, max(levels)) == (naming.LEVELS, "mail", top)
    assert seconds <= waited < seconds + naming.TICK + len(levels) / 1000


def test_what_is_delayed_for_longer_than_all_queues_takes_the_longest_path() -> None:
    top, key = naming.delay_path(1e9, "mail")
    assert (top, key.count("1")) == (naming.LEVELS - 1, naming.LEVELS)


def test_the_longest_name_fits_behind_the_longest_path() -> None:
    assert len(naming.delay_path(1e9, naming.queue_name("x" * 150, ""))[1]) < 255
