"""Arguments: bound and checked at the call, and given back as annotated."""

import dataclasses
import enum
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, TypedDict

import msgspec
import pydantic
import pytest

from penstock.codec import Arguments, serializer
from penstock.errors import ConfigError, DecodeError, EncodeError


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Model(pydantic.BaseModel):
    at: datetime
    size: int = pydantic.Field(alias="length")


class Point(msgspec.Struct):
    x: int


@dataclasses.dataclass
class Line:
    start: Point
    colours: set[Colour]


class Named(TypedDict):
    name: str


class Shout(str):
    pass


def add(x: int, y: int) -> int:
    return x + y


def plain(a, b=2, *rest, c=3, **more):  # type: ignore[no-untyped-def]
    return a


def keyed(a: int, /, b: int = 1, c: int = 2, *, d: float) -> None: ...


def test_a_call_has_one_form_however_it_was_written() -> None:
    arguments = Arguments("add", add)
    forms = {arguments.encode(*call) for call in [((4, 5), {}), ((4,), {"y": 5}), ((), {"y": 5, "x": 4})]}
    assert forms == {b"[[4,5],{}]"}
    assert arguments.decode(b"[[4,5],{}]") == ((4, 5), {})


def test_a_gap_leaves_the_rest_named_and_defaults_to_the_worker() -> None:
    arguments = Arguments("keyed", keyed)
    body = arguments.encode((1,), {"c": 7, "d": 1})
    assert msgspec.json.decode(body) == [[1], {"c": 7, "d": 1}]
    assert arguments.decode(body) == ((1,), {"c": 7, "d": 1.0})


@pytest.mark.parametrize("given", [(1,), (1, 2), (1, 2, 3)])
def test_omitted_defaults_stay_omitted(given: tuple[int, ...]) -> None:
    def function(a: int, b: int = 8, c: int | None = None) -> None: ...

    arguments = Arguments("f", function)
    assert arguments.decode(arguments.encode(given, {})) == (given, {})


def test_what_another_producer_named_is_read_too() -> None:
    assert Arguments("add", add).decode(b'[[4],{"y":5}]') == ((4,), {"y": 5})


NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.mark.parametrize("form", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (int, 2**62),
        (float, 0.1),
        (bool, True),
        (str, "ü\n\x00🎈"),
        (bytes, b"\x00\xff"),
        (None, None),
        (int | None, None),
        (int | str, "5"),
        (Colour, Colour.RED),
        (Level, Level.LOW),
        (uuid.UUID, uuid.UUID(int=5)),
        (datetime, NOW),
        (date, NOW.date()),
        (timedelta, timedelta(seconds=1.5)),
        (Decimal, Decimal("1.10")),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2, 3)),
        (dict[int, Colour], {1: Colour.RED}),
        (list[Line], [Line(Point(1), {Colour.RED})]),
        (Model, Model(at=NOW, length=3)),
        (list[Model] | None, [Model(at=NOW, length=3)]),
        (Literal["a", "b"], "a"),
        (Named, {"name": "x"}),
        (Iterable[int], [1, 2]),
        (Shout, Shout("HEY")),
        (Any, {"a": [1, None, True, "x"]}),
        (object, [1]),
    ],
)
def test_arguments_come_back_as_annotated(annotation: Any, value: Any, form: str) -> None:
    def function(x: Any) -> None: ...

    function.__annotations__["x"] = annotation
    arguments = Arguments("f", function)
    (back,), kwargs = arguments.decode(arguments.encode((value,), {}, serializer(form)), form)
    assert (back, type(back), kwargs) == (value, type(value), {})


def test_without_annotation_arguments_are_what_json_gives() -> None:
    arguments = Arguments("plain", plain)
    body = arguments.encode(({1, 2}, Colour.RED, 5), {"c": (1,), "z": Decimal("1.5")})
    assert arguments.decode(body) == (([1, 2], "red", 5), {"c": [1], "z": "1.5"})


@pytest.mark.parametrize(
    ("args", "kwargs", "error"),
    [
        ((1,), {}, "missing a required argument: 'y'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1, 2), {"z": 3}, "got an unexpected keyword argument 'z'"),
        ((1, 2), {"y": 3}, "multiple values for argument 'y'"),
    ],
)
def test_arguments_that_do_not_bind(args: tuple[Any, ...], kwargs: dict[str, Any], error: str) -> None:
    with pytest.raises(TypeError, match=f"add: {error}"):
        Arguments("add", add).encode(args, kwargs)


@pytest.mark.parametrize(("value", "said"), [("4", "`str`"), (4.5, "`float`"), (None, "`null`"), ([4], "`array`")])
def test_a_wrong_type_is_an_error_at_the_call_naming_the_argument(value: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"add: argument 'y' does not fit its annotation: Expected `int`, got {said}"):
        Arguments("add", add).encode((1, value), {})


def test_a_wrong_type_deep_inside_is_an_error_at_the_call() -> None:
    def function(lines: list[Line]) -> None: ...

    function.__annotations__["lines"] = list[Line]
    wrong = Line(Point("1"), set())  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match=r"argument 'lines' .*Expected `int`, got `str` - at `\$\[0\]\.start\.x`"):
        Arguments("f", function).encode(([wrong],), {})


def test_python_s_own_promotions_are_kept() -> None:
    def function(x: int, y: float, z: float) -> None: ...

    arguments = Arguments("f", function)
    args, _ = arguments.decode(arguments.encode((True, 2, True), {}))
    assert [(value, type(value)) for value in args] == [(1, int), (2.0, float), (1.0, float)]


class DjangoLike:
    _meta = object()
    pk = 5


class SqlAlchemyLike:
    _sa_instance_state = object()


@dataclasses.dataclass
class MappedAsDataclass:
    id: int
    _sa_instance_state = object()


class Opaque:
    pass


class Endless(list[Any]):
    def __init__(self) -> None:
        self.append(self)


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (Opaque(), r"argument 'a' \(Opaque\) cannot be sent: .*Opaque cannot be serialized; pass plain values"),
        ([{"x": Opaque()}], "argument 'a' .*Opaque cannot be serialized"),
        (DjangoLike(), "argument 'a' .*Django model: pass its id"),
        ([DjangoLike()], "argument 'a' .*Django model: pass its id"),
        (SqlAlchemyLike(), "argument 'a' .*SQLAlchemy instance: pass its id"),
        (MappedAsDataclass(1), "argument 'a' .*SQLAlchemy instance: pass its id"),
        (float("nan"), "argument 'a' .*nan has no form in JSON"),
        ({"x": [float("inf")]}, "argument 'a' .*inf has no form in JSON"),
        ("\ud800", "argument 'a' .*surrogates not allowed"),
        ({(1, 2): 3}, "argument 'a' .*cannot be s"),
        (CYCLE, "argument 'a' .*contains itself"),
        ((x for x in "ab"), "argument 'a' .*generator cannot be serialized"),
    ],
)
def test_what_cannot_be_serialized_is_named(value: Any, error: str) -> None:
    with pytest.raises(EncodeError, match=f"(?s)plain: {error}"):
        Arguments("plain", plain).encode((value,), {})


def test_a_plain_string_with_a_surrogate_is_named_on_the_fast_path() -> None:
    def function(x: str) -> None: ...

    with pytest.raises(EncodeError, match="argument 'x'"):
        Arguments("f", function).encode(("\ud800",), {})


def test_a_nan_is_refused_on_the_fast_path_and_sent_by_msgpack() -> None:
    def function(x: float) -> None: ...

    arguments = Arguments("f", function)
    with pytest.raises(EncodeError, match=r"argument 'x' .*nan has no form in JSON; use serializer='msgpack'"):
        arguments.encode((float("nan"),), {})
    (back,), _ = arguments.decode(arguments.encode((float("nan"),), {}, serializer("msgpack")), "msgpack")
    assert back != back


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "not \\[\\[positional"),
        (b"{}", "not \\[\\[positional"),
        (b"[[1,2]]", "not \\[\\[positional"),
        (b"[[1,2],{}] x", "not \\[\\[positional"),
        (b"[" * 100_000, "not \\[\\[positional"),
        (b"[[1,[" + b"[" * 100_000 + b"]" * 100_000 + b"]],{}]", "add: "),
        (b'[[1,"2"],{}]', "argument 'y' does not fit its annotation: Expected `int`, got `str`"),
        (b'[[1],{"y":"2"}]', "argument 'y' does not fit"),
        (b"[[1],{}]", "missing a required argument: 'y'"),
        (b"[[1,2,3],{}]", "3 positional arguments, the function takes 2"),
        (b'[[1,2],{"z":1}]', "no parameter 'z'"),
        (b'[[1,2],{"y":1}]', "multiple values for argument 'y'"),
    ],
)
def test_a_body_that_does_not_fit_is_a_decode_error(body: bytes, error: str) -> None:
    with pytest.raises(DecodeError, match=error):
        Arguments("add", add).decode(body)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[[1,2],{}]", "missing a required argument: 'd'"),
        (b'[[1,2],{"c":1}]', "missing a required argument: 'd'"),
        (b'[[1,2],{"b":1,"d":1}]', "multiple values for argument 'b'"),
        (b'[[],{"d":1}]', "missing a required positional-only argument: 'a'|missing a required argument: 'a'"),
        (b'[[],{"a":1,"d":1}]', "'a'"),
    ],
)
def test_a_body_without_what_must_be_named(body: bytes, error: str) -> None:
    with pytest.raises(DecodeError, match=error):
        Arguments("keyed", keyed).decode(body)


def test_an_unknown_content_type_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="content type 'pickle' is not read here"):
        Arguments("add", add).decode(b"[[1,2],{}]", "pickle")


def test_variable_arguments_are_typed_too() -> None:
    def function(first: str, *rest: int, **more: Colour) -> None: ...

    function.__annotations__["more"] = Colour
    arguments = Arguments("f", function)
    body = arguments.encode(("a", 1, 2), {"x": Colour.RED})
    assert arguments.decode(body) == (("a", 1, 2), {"x": Colour.RED})
    with pytest.raises(EncodeError, match="argument 'rest'"):
        arguments.encode(("a", 1, "2"), {})
    with pytest.raises(EncodeError, match="argument 'x'"):
        arguments.encode(("a",), {"x": 1})


def test_a_default_of_none_makes_none_welcome() -> None:
    def function(x: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert Arguments("f", function).encode((None,), {}) == b"[[null],{}]"


def test_string_annotations_are_resolved_and_missing_ones_named() -> None:
    def good(x: "uuid.UUID") -> None: ...

    def bad(x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert Arguments("f", good).decode(b'[["00000000-0000-0000-0000-000000000005"],{}]')[0] == (uuid.UUID(int=5),)
    with pytest.raises(ConfigError, match=r"task 'f': an annotation names 'Nowhere'.*not only under TYPE_CHECKING"):
        Arguments("f", bad)


def test_an_annotation_that_cannot_be_told_apart_is_a_config_error() -> None:
    def function(x: list[int] | tuple[int, ...]) -> None: ...

    with pytest.raises(ConfigError, match="task 'f', parameter 'x'"):
        Arguments("f", function)


def test_bound_leaves_out_the_first_parameter() -> None:
    def function(self: Any, x: int) -> None: ...

    assert Arguments("f", function, bound=True).encode((1,), {}) == b"[[1],{}]"


@pytest.mark.parametrize("function", [lambda: None, lambda *, x: x], ids=["none", "named only"])
def test_bound_needs_a_first_parameter(function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="needs a first parameter"):
        Arguments("f", function, bound=True)
