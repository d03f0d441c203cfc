"""The history and its checkers: what they see, and what they forgive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.testing.checkers import (
    Ledger,
    Remains,
    all_started,
    at_most_once,
    innocents_spared,
    no_loss,
    nothing_invented,
    poison_contained,
    single_commit,
)
from penstock.testing.history import Event, History, Kind, read_history


def event(kind: Kind, task: str) -> Event:
    return Event(kind, task, "me", 0, "")


def ledger(*events: tuple[Kind, str]) -> Ledger:
    return Ledger(event(kind, task) for kind, task in events)


def test_events_come_back_in_order(tmp_path: Path) -> None:
    first, second = History(tmp_path / "h", "a"), History(tmp_path / "h", "b")
    first.note(Kind.ASKED, "1")
    second.note_all(Kind.STARTED, ["1", "2"], "slot 3")
    first.close()
    second.close()
    found = [(one.kind, one.task, one.actor, one.detail) for one in read_history(tmp_path / "h")]
    assert found == [
        (Kind.ASKED, "1", "a", ""),
        (Kind.STARTED, "1", "b", "slot 3"),
        (Kind.STARTED, "2", "b", "slot 3"),
    ]


def test_a_torn_line_is_passed_over_and_spoils_no_other(tmp_path: Path) -> None:
    history = History(tmp_path / "h", "a")
    history.note(Kind.COMMITTED, "12345")
    whole = (tmp_path / "h").read_bytes()
    for length in range(1, len(whole) - 1):  # all but the line's end, which nobody misses
        (tmp_path / "h").write_bytes(whole[:length])
        history.note(Kind.ASKED, "7")
        tasks = [one.task for one in read_history(tmp_path / "h")]
        assert tasks == ["7"], whole[:length]
    history.close()


def test_a_name_cannot_forge_a_line(tmp_path: Path) -> None:
    history = History(tmp_path / "h", "a")
    with pytest.raises(ValueError, match="would break"):
        history.note(Kind.ASKED, "1\tcommitted")
    history.close()
    assert list(read_history(tmp_path / "h")) == []


def test_a_history_is_synced_when_asked(tmp_path: Path) -> None:
    synced: list[int] = []
    history = History(tmp_path / "h", "a", sync=synced.append)
    history.note(Kind.STARTED, "1")
    assert len(synced) == 1
    assert os.fstat(synced[0])
    history.close()


def test_what_is_lost() -> None:
    told = ledger((Kind.ASKED, "1"), (Kind.ACCEPTED, "1"), (Kind.ASKED, "2"), (Kind.ACCEPTED, "2"), (Kind.ASKED, "3"))
    assert no_loss(told, Remains(ended={"1"})).tasks == ("2",)
    assert no_loss(told, Remains(ended={"1"}, dead={"2"})).ok
    assert no_loss(told, Remains(ended={"1"}, waiting={"2"})).ok
    assert told.unknown == {"3"}


def test_what_is_invented() -> None:
    told = ledger((Kind.ASKED, "1"), (Kind.ASKED, "2"), (Kind.REFUSED, "2"), (Kind.STARTED, "4"))
    assert nothing_invented(told, Remains(ended={"1", "2"}, dead={"3"})).tasks == ("2", "3", "4")
    asked_again = ledger((Kind.ASKED, "2"), (Kind.REFUSED, "2"), (Kind.ASKED, "2"), (Kind.ACCEPTED, "2"))
    assert nothing_invented(asked_again, Remains(ended={"2"})).ok


def test_what_is_done_twice() -> None:
    twice = ledger((Kind.STARTED, "1"), (Kind.STARTED, "1"), (Kind.COMMITTED, "2"), (Kind.COMMITTED, "2"))
    assert at_most_once(twice).tasks == ("1",)
    assert single_commit(twice).tasks == ("2",)
    assert twice.repeated() == 1
    late = ledger((Kind.COMMITTED, "1"), (Kind.LATE, "1"))
    assert single_commit(late).ok
    again = ledger((Kind.COMMITTED, "1"), (Kind.ACKNOWLEDGED, "1"), (Kind.ACKNOWLEDGED, "1"))
    assert single_commit(again).ok
    assert again.acknowledged_again() == 1


def test_what_never_ran() -> None:
    assert all_started(ledger((Kind.STARTED, "1")), Remains(ended={"1", "2"})).tasks == ("2",)


def test_who_pays_for_poison() -> None:
    told = ledger(*[(Kind.ASKED, name) for name in ("1", "2", "bad")], *[(Kind.STARTED, "bad")] * 3)
    assert innocents_spared(told, Remains(dead={"2", "bad"}), {"bad"}).tasks == ("2",)
    assert poison_contained(told, Remains(dead={"bad"}), {"bad"}, 3).ok
    assert not poison_contained(told, Remains(dead={"bad"}), {"bad"}, 2).ok
    assert not poison_contained(told, Remains(), {"bad"}, 3).ok


def test_a_finding_says_what_is_broken() -> None:
    told = ledger(*[(Kind.ACCEPTED, str(number)) for number in range(1000)])
    assert str(no_loss(told, Remains())).startswith("no accepted task is lost: BROKEN for 1,000 of 1,000 tasks: 0, 1, ")
    assert str(no_loss(ledger(), Remains())) == "no accepted task is lost: kept for 0 tasks"
