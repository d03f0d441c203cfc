"""Errors as data: rebuilt where that is safe, described where it is not, never by running what the data names."""

import json
from typing import Any

import msgspec
import pytest

from penstock.codec import failure, read_failure, rebuild
from penstock.codec.failures import LIMIT
from penstock.errors import DecodeError, QueueFull, RemoteError, SoftTimeLimitExceeded, TaskRevoked


class Custom(Exception):
    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"{code} at {where}")
        self.code, self.where = code, where


class Dangerous(Exception):
    made = 0

    def __init__(self, *args: object) -> None:
        Dangerous.made += 1
        super().__init__(*args)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 3),
        KeyError("k"),
        FileNotFoundError(2, "No such file", "a.txt"),
        ZeroDivisionError(),
        TaskRevoked("gone"),
        SoftTimeLimitExceeded("10 s"),
    ],
)
def test_builtins_and_ours_come_back_as_they_were(error: Exception) -> None:
    back = rebuild(failure(raised(error)))
    assert (type(back), str(back)) == (type(error), str(error))


def test_the_worker_s_traceback_is_shown() -> None:
    back = rebuild(failure(raised(ValueError("x"))))
    (note,) = back.__notes__
    assert note.startswith("On the worker:\nTraceback")
    assert "in raised\n    raise error" in note


def test_attributes_of_our_errors_come_back() -> None:
    back = rebuild(failure(QueueFull("mail", 5, 5, 1.5, accepted=2)))
    assert isinstance(back, QueueFull)
    assert (back.queue, back.retry_after, back.accepted) == ("mail", 1.5, 2)


def test_an_app_s_own_error_comes_back_only_if_it_is_allowed() -> None:
    data = failure(Custom(5, where="here"))
    back = rebuild(data, (Custom,))
    assert isinstance(back, Custom)
    assert (back.code, back.where, str(back)) == (5, "here", "5 at here")
    remote = rebuild(data)
    assert isinstance(remote, RemoteError)
    assert remote.type_name.endswith("Custom")
    assert remote.message == "5 at here"


def test_no_initializer_of_an_app_s_error_is_called_by_data() -> None:
    data = failure(Dangerous("x"))
    made = Dangerous.made
    assert isinstance(rebuild(data, (Dangerous,)), Dangerous)
    assert Dangerous.made == made


@pytest.mark.parametrize(
    ("type_", "module"),
    [
        ("SystemExit", "builtins"),
        ("KeyboardInterrupt", "builtins"),
        ("eval", "builtins"),
        ("object", "builtins"),
        ("Popen", "subprocess"),
        ("system", "os"),
        ("Sequence", "penstock.errors"),
        ("Retry", "penstock.errors"),
        ("annotations", "penstock.errors"),
    ],
)
def test_what_the_data_names_is_not_made(type_: str, module: str) -> None:
    data = json.dumps({"type": type_, "module": module, "message": "boo", "args": ["1"]}).encode()
    assert type(rebuild(data, (Custom,))) is RemoteError


def test_an_exception_that_cannot_be_made_again_is_described() -> None:
    back = rebuild(failure(raised(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"))))
    assert isinstance(back, RemoteError)
    assert back.type_name == "UnicodeDecodeError"
    group = rebuild(failure(ExceptionGroup("many", [ValueError(1)])))
    assert isinstance(group, RemoteError)
    assert "ValueError: 1" in group.remote_traceback


def test_an_error_is_bounded_and_keeps_its_end() -> None:
    error = raised(ValueError("€" * 10_000_000, list(range(100_000))))
    data = failure(error, "start\n" + "\x01€" * 1_000_000 + "\nend")
    assert len(data) <= LIMIT
    stored = read_failure(data)
    assert stored.traceback.startswith("start")
    assert stored.traceback.endswith("end")
    assert isinstance(rebuild(data), RemoteError)


def test_an_error_that_cannot_be_shown_is_still_stored() -> None:
    class Evil(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "cannot be shown: RuntimeError" in read_failure(failure(Evil())).message
    assert read_failure(failure(ValueError("\ud800"))).message == "\\ud800"
    assert isinstance(rebuild(failure(ValueError(object()))), RemoteError)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"type":1}', b"[" * 100_000])
def test_bytes_that_are_no_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not a stored error"):
        rebuild(data)


def test_names_of_any_length_are_cut() -> None:
    kind: Any = type("E" * 100_000, (Exception,), {})
    assert len(failure(kind("x"))) < LIMIT
    assert msgspec.json.decode(failure(kind("x")))["message"] == "x"
