"""Errors as data: what a failed task tells its caller, without ever importing or calling what the data names.

An error is rebuilt as its own class only if that class is a builtin exception, an error of Penstock, or one that the
app allows by name (`throws`, `autoretry_for`, `result_exceptions`). All others come back as `RemoteError`.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from penstock import errors
from penstock.codec import values
from penstock.errors import DecodeError, EncodeError, PenstockError, RemoteError

SUMMARY = 500
LIMIT = 64 << 10
"""Bytes of a stored error; a longer one loses the middle of its traceback first."""
_TRACEBACK, _MESSAGE, _DETAILS = 40 << 10, 8 << 10, 8 << 10
_INHERITED = 600
"""Bytes of each part of an error that is handed on."""

Allowed = Iterable[type[BaseException]]


class Failure(Struct, omit_defaults=True):
    """The stored form. `args` and `state` are there only if they are plain JSON values."""

    type: str
    module: str
    message: str
    args: list[Any] | None = None
    state: dict[str, Any] | None = None
    traceback: str = ""


_decoder = msgspec.json.Decoder(Failure)


def failure(error: BaseException, traceback: str | None = None) -> bytes:
    """The stored form of `error`, at most `LIMIT` bytes. Never raises. `traceback` replaces the text of its own."""
    kind = type(error)
    stored = Failure(
        type=kind.__qualname__[:200],
        module=str(kind.__module__)[:200],
        message=_cut(_message(error), _MESSAGE),
        args=_plain(_arguments(error)),
        state=_plain(dict(getattr(error, "__dict__", ())), drop="__notes__"),
        traceback=_cut(_formatted(error) if traceback is None else traceback, _TRACEBACK),
    )
    data = values.json.encode(stored)
    if len(data) > LIMIT:
        # Escapes made it longer than its characters.
        stored = msgspec.structs.replace(stored, args=None, state=None, traceback=_cut(stored.traceback, 8 << 10))
        stored.message = _cut(stored.message, 1 << 10)
        data = values.json.encode(stored)
    return data


def inherited(data: bytes, note: str) -> bytes:
    """The stored error `data` for those that never started because of it, at most about 2 KiB: the same error, with
    `note` in place of its traceback. Never raises."""
    try:
        stored = read_failure(data)
    except DecodeError:
        stored = Failure("RemoteError", errors.__name__, "its error was not stored")
    stored.message, stored.traceback = _cut(stored.message, _INHERITED), _cut(note, _INHERITED)
    if len(values.json.encode([stored.args, stored.state])) > _INHERITED:
        stored.args = stored.state = None
    return values.json.encode(stored)


def summary(error: BaseException) -> str:
    """One text of a few hundred bytes that can be stored anywhere. Never raises, whatever its `__str__` does."""
    return _cut(f"{type(error).__name__}: {_message(error)}", SUMMARY)


def read_failure(data: bytes) -> Failure:
    """Raises `DecodeError`."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DecodeError(f"not a stored error: {error}") from error


def rebuild(data: bytes, allowed: Allowed = ()) -> BaseException:
    """The error in `data`, with the worker's traceback as a note; `RemoteError` where its class is not allowed or
    known.

    Raises `DecodeError`.
    """
    stored = read_failure(data)
    error = _restored(stored, allowed) or RemoteError(_dotted(stored), stored.message, stored.traceback)
    if stored.traceback:
        error.add_note("On the worker:\n" + stored.traceback.rstrip())
    return error


def _restored(stored: Failure, allowed: Allowed) -> BaseException | None:
    if stored.args is None:
        return None
    try:
        if stored.module == "builtins":
            return _builtin(stored)
        kind = _known(stored, allowed)
        if kind is None:
            return None
        # Not by its __init__, which may want other arguments, or do things: data must not make code run.
        error = kind.__new__(kind, *stored.args)
        error.args = tuple(stored.args)
        error.__dict__.update(stored.state or {})
        return error if str(error) == stored.message else None
    except Exception:
        return None


def _builtin(stored: Failure) -> BaseException | None:
    kind = getattr(builtins, stored.type, None)
    # SystemExit and KeyboardInterrupt would end the caller.
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return None
    return kind(*(stored.args or ()))


def _known(stored: Failure, allowed: Allowed) -> type[BaseException] | None:
    if stored.module == errors.__name__:
        kind = getattr(errors, stored.type, None)
        return kind if isinstance(kind, type) and issubclass(kind, PenstockError) else None
    for candidate in allowed:
        if candidate.__qualname__ == stored.type and candidate.__module__ == stored.module:
            return candidate
    return None


def _dotted(stored: Failure) -> str:
    return stored.type if stored.module == "builtins" else f"{stored.module}.{stored.type}"


def _arguments(error: BaseException) -> list[Any]:
    args = list(error.args)
    # OSError takes the names of its files out of its args.
    if isinstance(error, OSError) and error.filename is not None and len(args) == 2:
        args += [error.filename] if error.filename2 is None else [error.filename, None, error.filename2]
    return args


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as second:  # code of the user's, and we are about to say what went wrong already
        return f"(its message cannot be shown: {type(second).__name__})"


def _formatted(error: BaseException) -> str:
    import traceback  # only for errors

    try:
        return "".join(traceback.format_exception(error))
    except Exception as second:
        return f"(its traceback cannot be shown: {type(second).__name__})"


def _plain(value: Any, drop: str = "") -> Any:
    """`value` if it is made of JSON's own values and short, else `None`: a converted one would come back as another."""
    if drop:
        value.pop(drop, None)
        if not value:
            return None
    try:
        data = values.json.encode(value)
        return value if len(data) <= _DETAILS and msgspec.json.decode(data) == value else None
    except (EncodeError, msgspec.DecodeError, RecursionError):
        return None


def _cut(text: str, most: int) -> str:
    """At most `most` bytes of valid UTF-8: the beginning, and more of the end, where the error is."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return data.decode("utf-8")
    head = data[: most // 4].decode("utf-8", "ignore")
    tail = data[-(most - most // 4 - 32) :].decode("utf-8", "ignore")
    return f"{head}\n[… {len(data):,} bytes …]\n{tail}"
