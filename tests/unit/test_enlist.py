"""Statements as every driver marks their parameters."""

import pytest

from penstock.enlist import Statement

STATEMENT = Statement(("SELECT 100 % 7, f(", "::text, ", ")"), ("a", b"b"))


def test_numbered() -> None:
    assert STATEMENT.numbered() == "SELECT 100 % 7, f($1::text, $2)"


def test_formatted() -> None:
    assert STATEMENT.formatted() == "SELECT 100 %% 7, f(%s::text, %s)"
    assert STATEMENT.formatted() % ("1", "2") == "SELECT 100 % 7, f(1::text, 2)"


def test_parameters_go_between_the_parts() -> None:
    with pytest.raises(ValueError, match="2 parameters do not go between 2 parts"):
        Statement(("f(", ")"), ("a", "b"))
