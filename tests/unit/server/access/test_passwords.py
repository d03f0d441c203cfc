from __future__ import annotations

import sys

import pytest
from argon2 import Parameters
from argon2.profiles import CHEAPEST

from penstock.errors import ConfigError
from penstock.server.access.passwords import MAX_PASSWORD, Passwords, check_password, new_password


def grown() -> Parameters:
    return Parameters(
        **{**{name: getattr(CHEAPEST, name) for name in CHEAPEST.__slots__}, "time_cost": 2, "hash_len": 16}
    )


@pytest.fixture(scope="module")
def passwords() -> Passwords:
    return Passwords(CHEAPEST)


def test_a_hash_is_argon2id_and_verifies_its_password_only(passwords: Passwords) -> None:
    kept = passwords.hash("correct horse")
    assert kept.startswith("$argon2id$") and "correct" not in kept
    assert passwords.verify(kept, "correct horse")
    assert not passwords.verify(kept, "correct horsf")
    assert passwords.hash("correct horse") != kept


def test_by_default_it_costs_what_the_standard_says() -> None:
    assert "$m=65536,t=3,p=4$" in Passwords().hash("correct horse")


@pytest.mark.parametrize("password", ["", "x", "\ud800", "\0" * 9, "ä" * 500, "x" * MAX_PASSWORD])
def test_nobody_has_no_password(passwords: Passwords, password: str) -> None:
    assert not passwords.verify(None, password)


def test_a_hash_that_is_none_lets_nobody_in(passwords: Passwords) -> None:
    assert not passwords.verify("plain", "plain")
    assert not passwords.verify("", "")


def test_a_hash_is_renewed_when_parameters_grow(passwords: Passwords) -> None:
    old = passwords.hash("correct horse")
    assert passwords.renewed(old, "correct horse") is None
    stronger = Passwords(grown())
    assert stronger.verify(old, "correct horse")
    new = stronger.renewed(old, "correct horse")
    assert new is not None and "t=2" in new
    assert stronger.verify(new, "correct horse") and stronger.renewed(new, "correct horse") is None


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("seven77", "at least 8"),
        ("x" * (MAX_PASSWORD + 1), "at most"),
        ("ä" * 600, "at most"),
        ("pst_edcf72b91b9b_RPNT351FpIxQuV5VJ-JGMPZ4E5enHxmtQory44gYCGg", "is a token"),
    ],
)
def test_a_password_that_may_not_be_is_refused_and_not_shown(password: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        check_password(password)
    assert password not in str(caught.value)


def test_a_generated_password_may_be_one() -> None:
    assert check_password(new_password()) != new_password()


def test_without_argon2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "argon2", None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[broker\]'"):
        Passwords()
