"""The formats: what one can carry, and what is refused."""

import msgspec
import pytest

from penstock.codec import serializer
from penstock.codec.values import json
from penstock.errors import ConfigError, EncodeError


def test_canonical_bytes_do_not_depend_on_order() -> None:
    assert json.canonical({"b": 1, "a": {3, 1, 2}}) == json.canonical({"a": {2, 3, 1}, "b": 1})


def test_an_unknown_serializer_is_an_error_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="unknown serializer 'jsn'; did you mean 'json'"):
        serializer("jsn")


def test_subclasses_of_plain_types_are_sent_as_these() -> None:
    class Safe(str):
        pass

    class Count(int):
        pass

    assert json.encode([Safe("x"), Count(3)]) == b'["x",3]'


def test_nan_in_a_struct_is_found() -> None:
    class Reading(msgspec.Struct):
        value: float

    with pytest.raises(EncodeError, match="nan has no form in JSON"):
        json.encode([Reading(float("nan"))])
    assert json.encode([None, Reading(1.0)]) == b'[null,{"value":1.0}]'
