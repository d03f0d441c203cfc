"""Results are written as they are, and read as annotated."""

from datetime import UTC, datetime
from typing import Any

import pydantic
import pytest

from penstock.codec import Returned, serializer
from penstock.errors import ConfigError, DecodeError, EncodeError


class Model(pydantic.BaseModel):
    x: int


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 5),
        (None, None),
        (bool, True),
        (str, "x"),
        (Model, Model(x=1)),
        (dict[str, datetime], {"a": datetime(2026, 1, 1, tzinfo=UTC)}),
        (Any, [1, "a", None]),
    ],
)
def test_results_come_back_as_annotated(annotation: Any, value: Any, form: str) -> None:
    returned = Returned("t", annotation)
    assert returned.decode(returned.encode(value, serializer(form)), form) == value


def test_a_result_that_breaks_its_annotation_is_said_when_it_is_read() -> None:
    returned = Returned("t", int)
    with pytest.raises(DecodeError, match="t: the result does not fit the annotation <class 'int'>"):
        returned.decode(returned.encode("five"))


def test_a_result_that_cannot_be_stored() -> None:
    with pytest.raises(EncodeError, match=r"t: the result \(object\) cannot be stored: builtins.object cannot be"):
        Returned("t").encode(object())
    with pytest.raises(EncodeError, match="nan"):
        Returned("t").encode(float("nan"))


def test_an_annotation_that_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="task 't', result"):
        Returned("t", list[int] | tuple[int, ...])
