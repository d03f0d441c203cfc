"""Values to bytes and back: JSON (the default) and MessagePack, both by msgspec, guided by annotations on the way back;
YAML and pickle, in modules of their own, keep to the same interface.

Dataclasses, `msgspec.Struct`s, enums, `UUID`, dates, `Decimal`, `bytes`, sets and tuples come back as what they were
where the annotation says so, and as plain JSON values where there is none. Pydantic models are dumped and validated by
themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, get_origin

import msgspec

from penstock.errors import ConfigError, EncodeError

JSON, MSGPACK, YAML, PICKLE = "json", "msgpack", "yaml", "pickle"

_PLAIN: tuple[Any, ...] = (str, int, float, bytes)


class TypedDecoder(Protocol):
    def decode(self, part: Any, /) -> Any:
        """The value in what `Format.parse` or `Format.halves` gave. Raises `msgspec.DecodeError`."""
        ...


class Format:
    """One serialization: `name` is the message's content type. Encoders and decoders hold no state and may be
    shared."""

    shape: Any = tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]
    """Of a body whose arguments are then read one by one."""

    def __init__(self, name: str, encoder: Any, sorted_encoder: Any, decoder: Callable[..., TypedDecoder]) -> None:
        self.name = name
        self.raw: Callable[[Any], bytes] = encoder.encode
        """Without the checks of `encode`: for the hot path, where every value is an `int`, `str`, `bool` or `bytes`."""
        self._sorted: Callable[[Any], bytes] = sorted_encoder.encode
        self._decoder = decoder
        self._halves = decoder(self.shape)

    def encode(self, value: Any) -> bytes:
        """Raises `EncodeError` naming the type that cannot be serialized."""
        return self._checked(self.raw, value)

    def canonical(self, value: Any) -> bytes:
        """The same bytes for equal values, whatever the order of their keys."""
        return self._checked(self._sorted, value)

    def parse(self, data: bytes) -> Any:
        """What a decoder reads: the data itself, where annotations guide the very parser. Raises `DecodeError`."""
        return data

    def halves(self, part: Any) -> tuple[list[Any], dict[str, Any]]:
        """The parts of the positional and the named arguments. Raises `msgspec.DecodeError`."""
        halves: tuple[list[Any], dict[str, Any]] = self._halves.decode(part)
        return halves

    def decoder(self, annotation: Any = Any) -> TypedDecoder:
        """Raises `ConfigError` for an annotation that cannot be told apart on the way back, such as `list | tuple`."""
        try:
            return self._decoder(annotation, dec_hook=rebuild_custom)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"annotation {annotation!r} cannot be decoded: {error}") from error

    def _checked(self, encode: Callable[[Any], bytes], value: Any) -> bytes:
        try:
            data = encode(value)
        except EncodeError:
            raise
        except RecursionError:
            raise EncodeError("it is nested too deeply, or contains itself") from None
        except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
            raise EncodeError(str(error)) from error
        # msgspec writes NaN and infinity as JSON's null, which would come back as None.
        if self.name == JSON and b"null" in data:
            _refuse_not_finite(value)
        return data


class Built(Format):
    """A format whose parser has built the values before annotations are looked at."""

    def halves(self, part: Any) -> tuple[list[Any], dict[str, Any]]:
        match part:
            case (tuple() | list() as args, dict() as kwargs) if all(isinstance(name, str) for name in kwargs):
                return list(args), kwargs
        raise msgspec.DecodeError(f"a {type(part).__name__}")


def dump_custom(value: Any) -> Any:
    """What msgspec does not know: Pydantic models, subclasses of plain types. Raises `EncodeError`, with the remedy if
    known."""
    kind = type(value)
    if hasattr(kind, "to_plain"):  # a canvas
        return value.to_plain()
    if is_pydantic(kind):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    for plain in _PLAIN:
        if issubclass(kind, plain):
            return plain(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    refuse_database_row(value)
    raise EncodeError(
        f"{name} cannot be serialized; pass plain values, a dataclass, a msgspec.Struct or a Pydantic model"
    )


def refuse_database_row(value: Any) -> None:
    """Raise `EncodeError` for an ORM instance: its copy in the message would be stale, and detached, when the task
    runs."""
    kind = type(value)
    orm = ""
    if hasattr(kind, "_meta") and hasattr(kind, "pk"):
        orm = "a Django model"
    elif hasattr(value, "_sa_instance_state"):
        orm = "an SQLAlchemy instance"
    if orm:
        raise EncodeError(f"{kind.__module__}.{kind.__qualname__} is {orm}: pass its id, and load it in the task")


def rebuild_custom(kind: Any, value: Any) -> Any:
    """The way back of `dump_custom`; raises what msgspec turns into a `ValidationError` naming the place."""
    if is_pydantic(kind):
        return kind.model_validate(value)
    origin = get_origin(kind) or kind
    if hasattr(origin, "from_plain"):
        return origin.from_plain(value)
    if isinstance(origin, type):
        if isinstance(value, origin):
            return value
        if type(value) in _PLAIN and issubclass(origin, type(value)):
            make: Callable[[Any], Any] = origin
            return make(value)
    raise TypeError(f"a {type(value).__name__} cannot be made a {getattr(kind, '__name__', kind)}")


def is_pydantic(kind: Any) -> bool:
    # By what it has, so that Pydantic is never imported by us.
    return isinstance(kind, type) and hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate")


def _refuse_not_finite(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise EncodeError(f"{item} has no form in JSON; use serializer='msgpack', or None")
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            pending.extend(item)
        else:
            fields: Iterable[str] = getattr(item, "__dataclass_fields__", getattr(item, "__struct_fields__", ()))
            pending.extend(getattr(item, name, None) for name in fields)


json = Format(
    JSON,
    msgspec.json.Encoder(enc_hook=dump_custom),
    msgspec.json.Encoder(enc_hook=dump_custom, order="deterministic"),
    msgspec.json.Decoder,
)
msgpack = Format(
    MSGPACK,
    msgspec.msgpack.Encoder(enc_hook=dump_custom),
    msgspec.msgpack.Encoder(enc_hook=dump_custom, order="deterministic"),
    msgspec.msgpack.Decoder,
)
