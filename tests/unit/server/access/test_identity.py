"""What a client who is in may do, and hears when it may not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from penstock.errors import AccessRefused
from penstock.server.access.identity import ByCertificate, ByPassword, Identity
from penstock.server.access.rights import ADMINISTRATOR, Permission, Right
from tests.unit.server.access.kit import ALL, HERE, Door


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def ada_of(door: Door) -> Identity:
    return Identity(door.book, "ada", ByPassword(door.book.snapshot.users["ada"].generation), HERE, "/")


def test_a_right_that_is_taken_or_given_counts_at_once(door: Door) -> None:
    ada = ada_of(door)
    assert ada.may(Right.WRITE, "/", "mail")
    door.book.permit("ada", Permission("/", "", "other", ""))
    assert not ada.may(Right.WRITE, "/", "mail") and ada.may(Right.WRITE, "/", "other")
    door.book.forbid("ada", "/")
    assert not ada.may(Right.WRITE, "/", "other") and ada.still_valid(0.0)
    door.book.permit("ada", ALL)
    assert ada.may(Right.WRITE, "/", "mail")
    door.book.tag_user("ada", [ADMINISTRATOR])
    assert ada.administrator and ada.monitors
    door.book.tag_user("ada", [])
    assert not ada.administrator and not ada.monitors


def test_a_user_who_is_deleted_or_has_another_password_is_out(door: Door) -> None:
    by_password, by_certificate = ada_of(door), Identity(door.book, "ada", ByCertificate(), HERE, "/")
    door.book.set_password("ada", door.passwords.hash("another horse"))
    assert not by_password.still_valid(0.0) and not by_password.may(Right.READ, "/", "mail")
    assert by_certificate.still_valid(0.0) and by_certificate.may(Right.READ, "/", "mail")
    door.book.delete_user("ada")
    assert not by_certificate.still_valid(0.0) and by_certificate.tags == frozenset()


def test_who_is_in_a_namespace_that_is_deleted_is_out(door: Door) -> None:
    door.book.add_namespace("shop")
    door.book.permit("ada", Permission("*", ".*", ".*", ".*"))
    ada = Identity(door.book, "ada", ByCertificate(), HERE, "shop")
    assert ada.still_valid(0.0)
    door.book.delete_namespace("shop")
    assert not ada.still_valid(0.0)


def test_a_refusal_says_which_right_is_missing_and_nothing_of_what_there_is(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.book.permit("ada", Permission("/", "", "secret-project-.*", ""))
    error = ada_of(door).refusal(Right.READ, "queue", "/", "mail")
    assert isinstance(error, AccessRefused)
    assert "user 'ada' has no read right on queue 'mail' in namespace '/'" in str(error)
    assert "penstock users permit" in str(error) and "secret-project" not in str(error)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("penstock.broker.access", logging.WARNING)
    for part in (HERE, "'ada'", "read", "'mail'", "secret-project-.*"):
        assert part in record.getMessage()
    assert str(door.book.snapshot.users["ada"].password) not in record.getMessage()


@pytest.mark.parametrize("name", ["\x1b[31m", "a\nrefused 10.0.0.1: forged", "x" * 1_000_000, "\ud800"], ids=len)
def test_a_hostile_name_forges_no_line_of_the_log(door: Door, name: str, caplog: pytest.LogCaptureFixture) -> None:
    error = ada_of(door).refusal(Right.WRITE, "queue", name, name)
    for text in (str(error), caplog.records[0].getMessage()):
        assert text.isprintable() and len(text) < 1_500


def test_a_tag_that_is_missing_is_named(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    error = ada_of(door).untagged(ADMINISTRATOR, "users add")
    assert "users add needs the tag administrator, which user 'ada' does not have" in str(error)
    assert HERE in caplog.text
