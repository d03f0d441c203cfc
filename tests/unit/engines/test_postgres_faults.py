"""Every error of the driver is one of ours, and says what became of what was asked."""

import inspect

import pytest
from asyncpg import exceptions as pg

from penstock.engines.postgres.faults import is_broken, translate
from penstock.errors import (
    AccessRefused,
    BrokerError,
    BrokerUnavailable,
    OutcomeUnknown,
    PenstockError,
    StoreError,
    StoreFull,
)

URL = "postgresql://me@db:5432/app"
# Of the driver's exports these are raised by connections; warnings are not raised.
RAISED = [
    error
    for _, error in inspect.getmembers(pg, inspect.isclass)
    if issubclass(error, Exception) and not issubclass(error, Warning) and error.__module__.startswith("asyncpg")
]


@pytest.mark.parametrize("kind", RAISED, ids=lambda kind: str(kind.__name__))
def test_every_error_of_the_driver_becomes_ours(kind: type[Exception]) -> None:
    ours = translate(kind("what happened"), URL)
    assert isinstance(ours, PenstockError)
    assert URL in str(ours)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (pg.InvalidPasswordError, AccessRefused),
        (pg.InvalidCatalogNameError, AccessRefused),
        (pg.InsufficientPrivilegeError, StoreError),
        (pg.DiskFullError, StoreFull),
        (pg.TooManyConnectionsError, BrokerUnavailable),
        (pg.CannotConnectNowError, BrokerUnavailable),
        (pg.ReadOnlySQLTransactionError, BrokerUnavailable),
        (pg.SerializationError, BrokerUnavailable),
        (pg.DeadlockDetectedError, BrokerUnavailable),
        (pg.AdminShutdownError, OutcomeUnknown),
        (pg.CrashShutdownError, OutcomeUnknown),
        (pg.ConnectionDoesNotExistError, OutcomeUnknown),
        (pg.StatementCompletionUnknownError, OutcomeUnknown),
        (pg.DataCorruptedError, StoreError),
        (ConnectionResetError, OutcomeUnknown),
        (TimeoutError, OutcomeUnknown),
    ],
    ids=lambda kind: str(kind.__name__),
)
def test_what_is_known_of_the_outcome(kind: type[Exception], wanted: type[PenstockError]) -> None:
    ours = translate(kind("what happened"), URL)
    assert type(ours) is wanted
    assert is_broken(kind("what happened")) == (wanted is OutcomeUnknown)


def test_ours_and_bugs_stay_as_they_are() -> None:
    for error in (BrokerError("x"), KeyError("bug"), KeyboardInterrupt()):
        assert translate(error, URL) is error


def test_who_does_not_answer_is_told_in_words() -> None:
    assert str(translate(TimeoutError(), URL)) == f"{URL}: the connection broke (no answer in time)"
    assert str(translate(ConnectionResetError("reset"), URL)).endswith("broke (ConnectionResetError reset)")
