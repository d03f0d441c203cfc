"""YAML: the plain values of JSON, written as people like to read them.

Only the events of the library's parser are used, never its constructors: a tag, an anchor or an alias is refused, so
that nothing is built that the text names, and a short text cannot stand for a huge value. Of what is not quoted, null,
true, false, whole numbers of 64 bits and numbers with a point are what they look like; all else is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from penstock.codec.values import Built, dump_custom
from penstock.errors import DecodeError, EncodeError

DEEPEST = 320
"""Levels of nesting; what is deeper cannot be written either."""
DIGITS = 21
"""Of a whole number, with its sign; 2^64 has 20."""
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
# No more than what the library puts in quotes when it is text.
_FLOAT = re.compile(r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN"), float("nan")),
}
_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]  # with libyaml it is one class, without it another
    def ignore_aliases(self, data: object) -> bool:
        """What is there twice is written twice."""
        return True


class _Writer:
    def encode(self, value: Any) -> bytes:
        try:
            builtins = msgspec.to_builtins(value, enc_hook=dump_custom)
            text: bytes = yaml.dump(builtins, Dumper=_Dumper, encoding="utf-8", allow_unicode=True, sort_keys=False)
            msgspec.msgpack.encode(builtins)  # has the same limits as our reader
        except yaml.YAMLError as error:
            raise EncodeError(str(error)) from error
        return text


class _Converter:
    """From plain values to annotated ones, as the decoders of JSON do it."""

    def __init__(self, annotation: Any, dec_hook: Any = None) -> None:
        self._annotation, self._hook = annotation, dec_hook
        msgspec.json.Decoder(annotation, dec_hook=dec_hook)  # says which annotations cannot be used

    def decode(self, part: Any) -> Any:
        return msgspec.convert(part, self._annotation, dec_hook=self._hook)


class Yaml(Built):
    def __init__(self) -> None:
        super().__init__("yaml", _Writer(), _Writer(), _Converter)

    def parse(self, data: bytes) -> Any:
        return read(data)


def read(data: bytes) -> Any:
    """The value in one YAML document. Raises `DecodeError`."""
    try:
        events = yaml.parse(data, Loader=_Loader)
        values = list(_documents(iter(events)))
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"not YAML: {error}") from error
    if len(values) != 1:
        raise DecodeError(f"one YAML document is expected, not {len(values)}")
    return values[0]


def _documents(events: Iterator[Any]) -> Iterator[Any]:
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            yield _value(next(events), events, DEEPEST)


def _value(event: Any, events: Iterator[Any], depth: int) -> Any:
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise DecodeError("YAML with anchors or aliases is not read: a short text could stand for a huge value")
    if event.tag is not None and not (isinstance(event, yaml.ScalarEvent) and event.tag == "!"):
        raise DecodeError(f"YAML with tags ({event.tag[:40]}) is not read: data names no types")
    if not depth:
        raise DecodeError(f"YAML of more than {DEEPEST} levels is not read")
    if isinstance(event, yaml.ScalarEvent):
        return _plain(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        return list(_items(events, depth - 1))
    items = list(_items(events, depth - 1))
    return _mapping(items[::2], items[1::2])


def _items(events: Iterator[Any], depth: int) -> Iterator[Any]:
    """What a collection holds, up to its end."""
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            return
        yield _value(event, events, depth)


def _mapping(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    for key in keys:
        if isinstance(key, list | dict):
            raise DecodeError("YAML with lists or mappings as keys is not read")
    return dict(zip(keys, values, strict=True))


def _plain(text: str) -> Any:
    """What unquoted text stands for."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        # Short first: the time that a long one takes grows with its square.
        if len(text) <= DIGITS and -(1 << 63) <= (number := int(text)) < 1 << 64:
            return number
        raise DecodeError("YAML with whole numbers of more than 64 bits is not read")
    return float(text) if _FLOAT.fullmatch(text) else text


plain = Yaml()
