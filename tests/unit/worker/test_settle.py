"""Settling against an engine that fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock.broker import DONE, LEASE_LOST, Demand, Key, Step
from penstock.delivery import ACK, Dead, Receipt, Settlement
from penstock.engines.memory import open_engine
from penstock.errors import AccessRefused, BrokerUnavailable, ConfigError
from penstock.outcome import Outcome, State
from penstock.worker import settle
from penstock.worker.settle import Settler


class Committer:
    """Answers from a script: an exception is raised, a function answers."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.seen: list[Sequence[Settlement]] = []

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        self.seen.append(list(settle))
        answer = self.script.pop(0) if self.script else [DONE] * len(settle)
        if isinstance(answer, BaseException):
            raise answer
        return Step(answer, [])

    def know(self, receipt: Receipt, key: Key, task: str = "") -> None: ...


def settler(committer: Committer, *, giving_up: bool = False) -> Settler:
    return Settler(open_engine("memory://"), committer, lambda: giving_up)


ITEM = Settlement((1,), ACK, Outcome(State.SUCCESS, b"1", 5.0))


def test_an_outage_is_waited_for_and_the_same_is_tried_again() -> None:
    committer = Committer(BrokerUnavailable("away"), BrokerUnavailable("away"))
    settler(committer).step([ITEM], None)
    assert committer.seen == [[ITEM]] * 3


def test_a_password_that_is_refused_is_an_outage() -> None:
    """What ran meanwhile has ended well, and must not become a dead letter when the password is right again."""
    committer = Committer(AccessRefused("wrong password"))
    settler(committer).step([ITEM, ITEM], None)
    assert committer.seen == [[ITEM, ITEM]] * 2


def test_a_stopping_worker_gives_up_on_an_outage(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "STOPPING", 0.0)
    committer = Committer(BrokerUnavailable("away"))
    settler(committer, giving_up=True).step([ITEM], None)
    assert committer.seen == [[ITEM]]
    assert "will be delivered again" in caplog.text


def test_a_stopping_worker_tries_for_a_while_to_settle_and_not_at_all_to_reserve() -> None:
    committer = Committer(BrokerUnavailable("away"), BrokerUnavailable("away"))
    assert settler(committer, giving_up=True).step([], None) == ()
    assert committer.seen == [[]]
    settler(committer, giving_up=True).step([ITEM], None)
    assert committer.seen == [[], [ITEM], [ITEM]]


def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    settler(Committer(*[BrokerUnavailable("away")] * 3)).step([ITEM], None)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "works again" in caplog.text


def test_a_refused_login_is_a_sentence_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "REFUSED_PAUSE", 0.0)
    tested = settler(Committer(ConfigError("wrong password"), ConfigError("wrong password")))
    for _ in range(3):
        assert list(tested.step([], None)) == []
    first, last = caplog.records
    assert first.getMessage().endswith("is tried again until it works: wrong password")
    assert "Traceback" not in caplog.text
    assert "works again" in last.getMessage()


def test_a_refused_settlement_does_not_hold_up_the_others() -> None:
    other = Settlement((2,), ACK)
    committer = Committer(TypeError("batch"), TypeError("first"), [DONE], [DONE])
    settler(committer).step([ITEM, other], None)
    assert committer.seen[:2] == [[ITEM, other], [ITEM]]
    (dead,), (last,) = committer.seen[2], committer.seen[3]
    assert isinstance(dead.verdict, Dead)
    assert dead.outcome is not None
    assert dead.outcome.state == State.FAILURE
    assert last == other


def test_lost_leases_are_told(caplog: pytest.LogCaptureFixture) -> None:
    settler(Committer([LEASE_LOST])).step([ITEM], None)
    assert "1 leases were lost" in caplog.text
    caplog.clear()
    settler(Committer([DONE])).step([ITEM], None)
    assert caplog.text == ""


def test_one_attempt_says_whether_it_worked() -> None:
    assert settler(Committer()).attempt([ITEM])
    assert not settler(Committer(BrokerUnavailable("away"))).attempt([ITEM])
