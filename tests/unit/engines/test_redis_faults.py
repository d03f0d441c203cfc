"""Every error of the driver and of the server becomes one of ours."""

import hiredis
import pytest

from penstock.engines.redis.faults import CODES, DRIVER, PASSING, Broken, NotNow, code_of, translate
from penstock.errors import AccessRefused, BrokerUnavailable, PenstockError, StoreError, StoreFull

PUBLIC = "redis://bob@host:6379/0"

SERVER_CODES = """
ASK BUSY BUSYGROUP BUSYKEY CLUSTERDOWN CROSSSLOT DENIED ERR EXECABORT INPROG LOADING MASTERDOWN MISCONF MOVED NOAUTH
NOGOODSLAVE NOMASTERLINK NOPERM NOPROTO NOREPLICAS NOSCRIPT NOTBUSY OOM READONLY TRYAGAIN UNKILLABLE WRONGPASS WRONGTYPE
""".split()  # noqa: SIM905  (what src/server.c of Redis 7 and its modules answer with, kept readable)


def test_every_class_of_the_driver_is_mapped() -> None:
    exported = {one for one in vars(hiredis).values() if isinstance(one, type) and issubclass(one, Exception)}
    assert exported == set(DRIVER)
    for kind in exported:
        assert isinstance(translate(kind("ERR what"), PUBLIC), PenstockError)


@pytest.mark.parametrize("code", SERVER_CODES)
def test_every_code_of_the_server_is_known(code: str) -> None:
    assert (code in CODES) != (code in PASSING)
    found = translate(hiredis.ReplyError(f"{code} and its text"), PUBLIC)
    assert isinstance(found, PenstockError)
    assert PUBLIC in str(found)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
        ("MISCONF Errors writing to the AOF file: No space left on device", StoreFull),
        ("WRONGPASS invalid username-password pair or user is disabled.", AccessRefused),
        ("ERR AUTH <password> called without any password configured for the default user.", AccessRefused),
        ("NOAUTH Authentication required.", AccessRefused),
        ("READONLY You can't write against a read only replica.", BrokerUnavailable),
        ("SOMETHING of a later version", StoreError),
    ],
)
def test_what_becomes_of_it(text: str, kind: type[PenstockError]) -> None:
    assert type(translate(hiredis.ReplyError(text), PUBLIC)) is kind


def test_broken_connections_are_unavailable() -> None:
    for error in (Broken("gone", sent=False), NotNow("loading"), ConnectionRefusedError("no"), OSError("network")):
        assert type(translate(error, PUBLIC)) is BrokerUnavailable


def test_ours_and_bugs_stay_as_they_are() -> None:
    ours, bug = StoreError("x"), ZeroDivisionError("y")
    assert translate(ours, PUBLIC) is ours
    assert translate(bug, PUBLIC) is bug


def test_free_text_is_a_plain_error() -> None:
    assert code_of(hiredis.ReplyError("unknown")) == "ERR"
    assert code_of(hiredis.ReplyError("-OOM x")) == "OOM"
