"""Exact names, globs and regular expressions."""

import re
from typing import Any

import pytest

from penstock.by_name import by_name
from penstock.errors import ConfigError


def keep(where: str, value: Any) -> Any:
    return value


def test_a_name_is_stronger_than_a_pattern_and_the_first_pattern_than_the_next() -> None:
    table = by_name("s", {"*": 1, "mail.*": 2, "mail.send": 3, re.compile(r"web\.(a|b)"): 4}, keep)
    assert table.first("mail.send") == 3
    assert table.first("mail.other") == 1
    assert table.first("web.a") == 1
    assert list(table.every("mail.send")) == [1, 2, 3]
    assert list(table.every("web.b")) == [1, 4]


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("mail.*", "mail.send", True),
        ("mail.*", "mail.", True),
        ("mail.*", "mail", False),
        ("mail.*", "email.send", False),
        ("*.send", "mail.send", True),
        ("*.send", "mail.sender", False),
        ("mail.?", "mail.a", True),
        ("mail.[ab]", "mail.c", False),
        ("mail.send", "mail.send.later", False),
        (re.compile(r"mail\."), "mail.send", True),
        (re.compile(r"send"), "mail.send", False),
    ],
    ids=str,
)
def test_what_a_pattern_fits(pattern: Any, name: str, fits: bool) -> None:
    assert (by_name("s", {pattern: 1}, keep).first(name) == 1) is fits


def test_pairs_do_as_well_as_a_dictionary() -> None:
    assert by_name("s", [("a*", 1), ("ab", 2)], keep).first("ac") == 1


@pytest.mark.parametrize("key", ["", 5, None, re.compile(b"x")], ids=repr)
def test_what_is_no_pattern_is_refused(key: Any) -> None:
    with pytest.raises(ConfigError, match="a task's name, a glob or a compiled regular expression, not"):
        by_name("task_routes", {key: 1}, keep)


def test_values_are_read_with_their_place() -> None:
    said = []
    by_name("task_routes", {"a": 1, re.compile("b"): 2}, lambda where, value: said.append((where, value)))
    assert said == [("task_routes['a']", 1), ("task_routes['b']", 2)]
