"""What permissions come to, and patterns that cannot stop the broker."""

from __future__ import annotations

import re
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.message import MAX_NAME
from penstock.server.access.patterns import MAX_PATTERN, check_pattern, matches
from penstock.server.access.rights import (
    DECISIONS,
    EVERYWHERE,
    Permission,
    Right,
    Rights,
    check_permission,
    check_tags,
)

NAMES = st.text(max_size=20)
NAMESPACES = st.sampled_from(["/", "shop", EVERYWHERE])
PATTERNS = st.sampled_from(["", ".*", "mail", "mail\\..*", "[a-z]+", "a|b"])
PERMISSIONS = st.builds(Permission, NAMESPACES, PATTERNS, PATTERNS, PATTERNS)


def may(permission: Permission, right: Right, namespace: str, name: str) -> bool:
    return Rights([permission]).may(right, namespace, name)


def test_each_right_has_its_own_pattern() -> None:
    permission = Permission("/", "", "mail", ".*")
    assert not may(permission, Right.CONFIGURE, "/", "mail")
    assert may(permission, Right.WRITE, "/", "mail")
    assert not may(permission, Right.WRITE, "/", "other")
    assert may(permission, Right.READ, "/", "other")


@pytest.mark.parametrize("name", ["mailbox", "xmail", "mail\n", "\nmail", "MAIL", "mail\0", "", "mail "])
def test_a_pattern_matches_the_whole_name(name: str) -> None:
    assert not may(Permission("/", "", "", "mail"), Right.READ, "/", name)


def test_an_anchor_lets_no_line_break_through() -> None:
    assert not may(Permission("/", "", "", "^mail$"), Right.READ, "/", "mail\n")


def test_a_permission_counts_in_its_namespace_only() -> None:
    assert not may(Permission("shop", ".*", ".*", ".*"), Right.READ, "/", "mail")
    assert may(Permission(EVERYWHERE, ".*", ".*", ".*"), Right.READ, "any", "mail")
    assert Rights([Permission("shop", "", "", "")]).reach("shop")
    assert not Rights([Permission("shop", "", "", "")]).reach("/")


def test_a_name_that_is_too_long_is_never_looked_at() -> None:
    rights = Rights([Permission("/", ".*", ".*", ".*")])
    assert rights.may(Right.READ, "/", "a" * MAX_NAME)
    assert not rights.may(Right.READ, "/", "a" * (MAX_NAME + 1))


def test_decisions_are_kept_and_bounded() -> None:
    rights = Rights([Permission("/", ".*", ".*", ".*")])
    for number in range(10 * DECISIONS):
        assert rights.may(Right.READ, "/", f"q{number}")
    assert rights._decided.cache_info().currsize == DECISIONS
    assert rights.may(Right.READ, "/", f"q{10 * DECISIONS - 1}")
    assert rights._decided.cache_info().hits == 1


@given(st.lists(PERMISSIONS, max_size=4), st.sampled_from(Right), st.sampled_from(["/", "shop"]), NAMES)
def test_permissions_add_up(permissions: list[Permission], right: Right, namespace: str, name: str) -> None:
    rights = Rights(permissions)
    expected = bool(name) and any(
        one.namespace in (namespace, EVERYWHERE) and re.fullmatch(getattr(one, right), name) is not None
        for one in permissions
    )
    assert rights.may(right, namespace, name) is expected
    assert rights.may(right, namespace, name) is expected  # as it was kept


@given(st.lists(PERMISSIONS, max_size=3), PERMISSIONS, st.sampled_from(Right), NAMES)
def test_one_permission_more_never_takes_a_right(
    permissions: list[Permission], more: Permission, right: Right, name: str
) -> None:
    if Rights(permissions).may(right, "/", name):
        assert Rights([*permissions, more]).may(right, "/", name)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|aa)+b",
        "(a?){50}b",
        "a?" * 60,
        ".*.*.*.*",
        "(x+x+)+y",
        "(.*)*",
        "(a|b|ab)*c",
        "((a{1,100})a{1,100}){9}",
    ],
)
def test_a_pattern_that_may_run_for_years_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="too many ways"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(", "no regular expression"),
        ("a{99999999999}", "no regular expression"),
        ("(a)\\1", "back-reference"),
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(a)?(?(1)b|c)", "condition"),
        ("a" * (MAX_PATTERN + 1), "over 200"),
        (7, "must be a string"),
        (None, "must be a string"),
    ],
)
def test_a_bad_pattern_is_refused_when_it_is_set(pattern: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_permission(Permission("/", ".*", pattern, ".*"))


@pytest.mark.parametrize(
    "pattern", ["", ".*", "mail|sms", "(mail|sms)\\..*", "[a-z]+-[0-9]{1,3}", "(?i)mail.*", "^a.*z$"]
)
def test_what_people_write_is_allowed(pattern: str) -> None:
    check_pattern(pattern)


@given(st.text("ab|()[]*+?.{},123^$\\-", max_size=24))
def test_what_is_allowed_is_quick(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a set that may mean something else one day
        try:
            check_pattern(pattern)
        except ConfigError:
            return
        for name in ("a" * MAX_NAME, "ab" * (MAX_NAME // 2), "a" * (MAX_NAME - 1) + "!"):
            started = time.process_time()
            matches(pattern, name)
            assert time.process_time() - started < 1.0


@pytest.mark.parametrize("pattern", [".*.*.*!", "a+a+a+b", "(a|b)?.*.*b"])
def test_the_worst_that_is_allowed_takes_no_second(pattern: str) -> None:
    check_pattern(pattern)
    started = time.process_time()
    assert not matches(pattern, "a" * MAX_NAME)
    assert time.process_time() - started < 1.0


def test_tags_that_mean_nothing_are_refused() -> None:
    assert check_tags(["administrator", "administrator"]) == {"administrator"}
    with pytest.raises(ConfigError, match="did you mean 'administrator'"):
        check_tags(["administratr"])


@pytest.mark.parametrize("namespace", ["", "a\nb", " a", "x" * 300])
def test_a_permission_names_a_namespace(namespace: str) -> None:
    with pytest.raises(ConfigError, match="namespace"):
        check_permission(Permission(namespace, "", "", ""))
