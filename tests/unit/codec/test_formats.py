"""YAML and pickle beside JSON and MessagePack: what goes in comes out, and what is hostile does not get in."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.codec import Arguments, Format, Reader, Returned, serializer
from penstock.codec.formats import NAMES
from penstock.errors import ConfigError, DecodeError, EncodeError

EVERYTHING = Reader(NAMES)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**64 - 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
LOOK_ALIKES = (
    "1e5",
    "1_000",
    "0x1f",
    "012",
    "12:30:45",
    "yes",
    "~",
    "2020-01-01",
    "",
    "null",
    ".5",
    "- a",
    "<<",
    "=",
    "*x",
)


@dataclass
class Order:
    id: UUID
    due: datetime
    lines: tuple[int, ...]
    note: bytes = b""


@pytest.mark.parametrize("name", NAMES)
@given(value=PLAIN)
@example(value=list(LOOK_ALIKES))
@example(value=["\x85", "\u2028", "\x00\x1f", "a: b # c", " spaced ", "line\nline\n", "'\"", "\U0001f600", "\ufeff"])
def test_plain_values_come_back_as_they_were(name: str, value: Any) -> None:
    form = serializer(name)
    returned = Returned("t", reader=EVERYTHING)
    assert returned.decode(returned.encode(value, form), name) == value


@pytest.mark.parametrize("name", NAMES)
@given(args=st.lists(PLAIN, max_size=3), kwargs=st.dictionaries(TEXT, PLAIN, max_size=3))
def test_arguments_come_back_as_they_were(name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    def function(*args: Any, **kwargs: Any) -> None: ...

    codec = Arguments("t", function, reader=EVERYTHING)
    assert codec.decode(codec.encode(tuple(args), kwargs, serializer(name)), name) == (tuple(args), kwargs)


@pytest.mark.parametrize("name", NAMES)
def test_annotations_are_kept_to(name: str) -> None:
    def ship(order: Order, *, times: int = 1) -> None: ...

    order = Order(UUID(int=7), datetime(2026, 11, 27, tzinfo=UTC), (1, 2), b"\xff")
    codec = Arguments("ship", ship, reader=EVERYTHING)
    body = codec.encode((order,), {"times": 2}, serializer(name))
    assert codec.decode(body, name) == ((order,), {"times": 2})


@pytest.mark.parametrize("name", ["msgpack", "yaml"])
def test_what_does_not_fit_its_annotation_is_named(name: str) -> None:
    def add(x: int) -> None: ...

    form = serializer(name)
    with pytest.raises(DecodeError, match="argument 'x' does not fit"):
        Arguments("add", add, reader=EVERYTHING).decode(form.encode((["1"], {})), name)
    with pytest.raises(EncodeError, match="argument 'x' does not fit"):
        Arguments("add", add, reader=EVERYTHING).encode(("1",), {}, form)


@pytest.mark.parametrize("name", ["yaml", "pickle", "msgpack"])
@pytest.mark.parametrize("body", [b"", b"5", b"\x80", b"[[1]]", b"[1, {}]", b"{}", b"\xff\xfe\x00", b"cos\nsystem\n"])
def test_a_body_that_is_none_is_an_error(name: str, body: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^t: "):
        Arguments("t", lambda *_: None, reader=EVERYTHING).decode(body, name)


def test_only_what_is_accepted_is_read() -> None:
    reader = Reader(["json"])
    codec = Arguments("t", lambda x: None, reader=reader)
    with pytest.raises(DecodeError, match=r"content type 'yaml' is not read here \(accept_content: json\)"):
        codec.decode(b"[[1], {}]", "yaml")
    with pytest.raises(DecodeError, match="content type 'json' is not read here"):
        Arguments("t", lambda x: None, reader=Reader(["msgpack"])).decode(b"[[1],{}]", "json")
    with pytest.raises(DecodeError, match="content type 'json' is not read here"):
        Returned("t", reader=Reader(["msgpack"])).decode(b"1", "json")


# -- YAML


def yaml(text: str) -> Any:
    form = serializer("yaml")
    return form.decoder().decode(form.parse(text.encode()))


def test_yaml_as_people_write_it() -> None:
    assert yaml("- 1\n- two\n- 2.5\n- null\n- yes\n- 'no'\n- {a: [b, c]}\n- |\n  text\n") == [
        1, "two", 2.5, None, "yes", "no", {"a": ["b", "c"]}, "text\n",
    ]  # fmt: skip
    assert yaml("1: one") == {1: "one"}
    assert math.isnan(yaml(".nan"))
    assert yaml("-.inf") == -math.inf
    # YAML 1.1 makes other things of these, some of them slowly.
    assert yaml(str(list(LOOK_ALIKES[:5]))) == list(LOOK_ALIKES[:5])
    assert yaml("[1e5, 012, 12:30:45, 2020-01-01, 1_000]") == ["1e5", "012", "12:30:45", "2020-01-01", "1_000"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("!!python/object/apply:os.system ['true']", "YAML with tags"),
        ("!!int '5'", "YAML with tags"),
        ("&a [*a]", "anchors or aliases"),
        ("a: &x [1]\nb: *x", "anchors or aliases"),
        ("? [1]\n: 2", "lists or mappings as keys"),
        ("[" * 321 + "]" * 321, "more than 320 levels"),
        ("9" * 5000, "more than 64 bits"),
        ("99999999999999999999", "more than 64 bits"),
        ("-9223372036854775809", "more than 64 bits"),
        ("--- 1\n--- 2", "one YAML document is expected, not 2"),
        ("", "one YAML document is expected, not 0"),
        ("[1", "not YAML"),
        ("\x01", "not YAML"),
    ],
)
def test_hostile_yaml_is_refused(text: str, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        yaml(text)


def test_a_short_yaml_text_cannot_stand_for_a_huge_value() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(DecodeError, match="anchors or aliases"):
        yaml("\n".join(lines))


def test_what_yaml_shares_is_written_twice() -> None:
    shared = [1, 2]
    data = serializer("yaml").encode([shared, shared])
    assert b"&" not in data
    assert yaml(data.decode()) == [shared, shared]


def test_what_no_format_has_room_for_is_said() -> None:
    for name in ("yaml", "msgpack"):
        with pytest.raises(EncodeError):
            serializer(name).encode([2**70])
    with pytest.raises(EncodeError, match="cannot be serialized"):
        serializer("yaml").encode([object()])


# -- pickle


class Fortune:
    def __init__(self, text: str) -> None:
        self.text = text


class Grudge:
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


def test_pickle_carries_what_the_others_cannot() -> None:
    def tell(fortune: Fortune) -> None: ...

    codec = Arguments("tell", tell, reader=EVERYTHING)
    ((fortune,), _) = codec.decode(codec.encode((Fortune("soon"),), {}, serializer("pickle")), "pickle")
    assert type(fortune) is Fortune
    assert fortune.text == "soon"


@pytest.mark.parametrize("value", [lambda: None, sys, (n for n in ())])
def test_what_cannot_be_pickled_is_said(value: Any) -> None:
    with pytest.raises(EncodeError):
        serializer("pickle").encode(value)


def test_a_format_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "penstock.codec.yaml_text", None)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[yaml\]'"):
        serializer("yaml")


def test_formats_hold_no_state() -> None:
    assert all(isinstance(serializer(name), Format) and serializer(name) is serializer(name) for name in NAMES)
