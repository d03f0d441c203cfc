"""Who is let in, who is not, and what either learns from it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest
from argon2 import Parameters
from argon2.low_level import Type
from argon2.profiles import RFC_9106_LOW_MEMORY

from penstock.errors import AccessRefused, StoreFull
from penstock.server.access import signing_in
from penstock.server.access.passwords import MAX_PASSWORD, Passwords
from penstock.server.access.rights import Permission, Right
from penstock.server.access.signing_in import Credentials, Gatekeeper
from penstock.server.access.tokens import DAY
from tests.unit.server.access.kit import ALL, HERE, PASSWORD, Counted, Door


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_the_right_password_lets_in(door: Door) -> None:
    async def work() -> None:
        ada = await door.enter()
        assert (ada.user, ada.address, ada.expires) == ("ada", HERE, None)
        assert ada.may(Right.READ, "/", "mail") and ada.still_valid(door.clock.time())
        assert (await door.enter(namespace="")).may(Right.READ, "/", "mail")

    door.run(work)


HOSTILE = ["", "adä", "ada\0", "ADA", "a" * 201, "a" * 1_000_000, "\ud800", "'; DROP TABLE user; --", "*", "bootstrap"]


@pytest.mark.parametrize("user", HOSTILE, ids=[repr(name[:20] + str(len(name))) for name in HOSTILE])
def test_a_strange_name_is_nobody(door: Door, user: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        told = await door.refused(user)
        assert len(told) < 1_000
        assert all(len(record.getMessage()) < 1_500 and record.getMessage().isprintable() for record in caplog.records)

    door.run(work)


@pytest.mark.parametrize("secret", ["", "wrong horse", PASSWORD + "\0", "\ud800" * 9, "x" * MAX_PASSWORD])
def test_a_wrong_password_lets_nobody_in(door: Door, secret: str) -> None:
    async def work() -> None:
        await door.refused(secret=secret)
        assert door.passwords.runs == [True]

    door.run(work)


@pytest.mark.parametrize("secret", ["x" * (MAX_PASSWORD + 1), "ä" * MAX_PASSWORD, "x" * 10_000_000], ids=len)
def test_a_secret_that_is_too_long_is_no_work(door: Door, secret: str) -> None:
    async def work() -> None:
        await door.refused(secret=secret)
        assert door.passwords.runs == []

    door.run(work)


def test_who_is_refused_does_not_learn_why_and_the_log_does(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    door.book.add_user("bob", door.passwords.hash(PASSWORD))
    door.book.add_namespace("shop")
    door.book.add_user("robot", None)

    async def work() -> None:
        told = [
            await door.refused("ada", "wrong horse"),
            await door.refused("eve", PASSWORD),
            await door.refused("robot", PASSWORD),
            await door.refused("bob", PASSWORD),
            await door.refused("ada", PASSWORD, namespace="shop"),
            await door.refused("ada", PASSWORD, namespace="nowhere"),
        ]
        names = ("ada", "eve", "robot", "bob", "shop", "nowhere", "/")
        for text in told:
            assert PASSWORD not in text and "wrong horse" not in text
        for at, text in enumerate(told):
            for name in names:
                text = text.replace(repr(name), "…")
            told[at] = text
        assert len(set(told)) == 1, told

    door.run(work)
    why = ["the password is wrong", "there is no such user", "without a password", "no permission", "no permission"]
    logged = [record.getMessage() for record in caplog.records if record.name == "penstock.broker.access"]
    for line, part in zip(logged, [*why, "no such namespace"], strict=True):
        assert part in line and HERE in line and "user '" in line and PASSWORD not in line
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_an_unknown_user_costs_as_many_runs_of_argon2_as_a_known_one(door: Door) -> None:
    door.book.add_user("robot", None)

    async def work() -> None:
        await door.refused("ada", "wrong horse")
        await door.refused("eve", "wrong horse")
        await door.refused("robot", "wrong horse")
        assert door.passwords.runs == [True, False, False]

    door.run(work)


def test_an_unknown_user_takes_as_long_as_a_known_one(door: Door) -> None:
    slow = Parameters(Type.ID, 19, 16, 32, time_cost=8, memory_cost=8_192, parallelism=1)
    passwords = Passwords(slow)
    door.book.set_password("ada", passwords.hash(PASSWORD))

    async def work() -> None:
        keeper = Gatekeeper(door.book, clock=door.clock, passwords=passwords)
        # CPU time: what else the machine does is no difference between users.
        times: dict[str, list[float]] = {"ada": [], "eve": []}
        for attempt in range(4):
            for user, taken in times.items():
                started = time.process_time()
                with pytest.raises(AccessRefused):
                    await keeper.sign_in(Credentials(user, f"wrong {attempt}"), HERE, "/")
                taken.append(time.process_time() - started)
        keeper.close()
        known, unknown = min(times["ada"]), min(times["eve"])
        assert 0.5 < known / unknown < 2.0, times

    door.run(work)


# -- a thousand at once


def test_a_thousand_who_come_back_cost_one_run(door: Door) -> None:
    async def work() -> None:
        found = await asyncio.gather(*(door.enter(address=f"10.0.0.{at % 250}") for at in range(1_000)))
        assert len(found) == 1_000 and door.passwords.runs == [True]
        await door.enter(address="10.9.9.9")
        assert door.passwords.runs == [True]

    door.run(work)


def test_what_was_verified_counts_no_more_when_the_user_changes(door: Door) -> None:
    async def work() -> None:
        await door.enter()
        door.book.set_password("ada", door.passwords.hash("another horse"))
        await door.refused()
        await door.enter(secret="another horse")
        assert door.passwords.runs == [True] * 3
        door.book.delete_user("ada")
        await door.refused(secret="another horse")
        door.book.add_user("ada", door.passwords.hash("third horse"))
        door.book.permit("ada", ALL)
        await door.refused(secret="another horse")

    door.run(work)


def test_another_process_that_deletes_a_user_is_heard_at_the_next_sign_in(door: Door, tmp_path: Path) -> None:
    from penstock.server.access.book import Book

    async def work() -> None:
        ada = await door.enter()
        other = Book(tmp_path)
        other.delete_user("ada")
        other.close()
        await door.refused()
        assert not ada.still_valid(door.clock.time())

    door.run(work)


class Held(Counted):
    """Argon2 that waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self._begun, self.go = threading.Semaphore(0), threading.Event()

    async def begun(self) -> None:
        """Until one more run has begun."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=5)

    def verify(self, kept: str | None, password: str) -> bool:
        self._begun.release()
        assert self.go.wait(10)
        return super().verify(kept, password)


def test_a_password_that_changes_while_it_is_verified_is_the_former_one(door: Door) -> None:
    held = Held()

    async def work() -> None:
        keeper = Gatekeeper(door.book, clock=door.clock, passwords=held)
        first = asyncio.create_task(keeper.sign_in(Credentials("ada", PASSWORD), HERE, "/"))
        await held.begun()
        door.book.set_password("ada", held.hash("another horse"))
        second = asyncio.create_task(keeper.sign_in(Credentials("ada", PASSWORD), HERE, "/"))
        await held.begun()
        held.go.set()
        for attempt in (first, second):
            with pytest.raises(AccessRefused):
                await attempt
        keeper.close()

    door.run(work)


def test_who_goes_away_while_it_is_verified_takes_nobody_along(door: Door) -> None:
    held = Held()

    async def work() -> None:
        keeper = Gatekeeper(door.book, clock=door.clock, passwords=held)
        first, second = (asyncio.create_task(keeper.sign_in(Credentials("ada", PASSWORD), HERE, "/")) for _ in "ab")
        await held.begun()
        first.cancel()
        held.go.set()
        assert (await second).user == "ada" and first.cancelled()
        keeper.close()

    door.run(work)


def test_passwords_that_wait_are_bounded_and_closing_refuses_them(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_in, "MOST_WAITING", 3)
    held = Held()

    async def work() -> None:
        keeper = Gatekeeper(door.book, clock=door.clock, passwords=held)
        waiting = [
            asyncio.create_task(keeper.sign_in(Credentials(f"user{at}", "wrong horse"), HERE, "/")) for at in range(3)
        ]
        await held.begun()
        with pytest.raises(AccessRefused, match="try again in 1 s"):
            await keeper.sign_in(Credentials("ada", PASSWORD), HERE, "/")
        keeper.close()
        for one in waiting:
            with pytest.raises(AccessRefused):
                await one
        held.go.set()

    door.run(work)


def test_a_hash_is_renewed_when_parameters_have_grown(door: Door) -> None:
    before = door.book.snapshot.users["ada"]
    stronger = Counted(RFC_9106_LOW_MEMORY)

    async def work() -> None:
        keeper = Gatekeeper(door.book, clock=door.clock, passwords=stronger)
        ada = await keeper.sign_in(Credentials("ada", PASSWORD), HERE, "/")
        after = door.book.snapshot.users["ada"].password
        assert after is not None and after != before.password and "m=65536" in after
        assert ada.still_valid(door.clock.time())  # it is the same password
        await keeper.sign_in(Credentials("ada", PASSWORD), HERE, "/")
        assert stronger.runs == [True]
        keeper.close()

    door.run(work)


def test_a_hash_that_cannot_be_renewed_lets_in_all_the_same(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: str) -> None:
        raise StoreFull("no space left")

    monkeypatch.setattr(door.book, "renew_hash", full)

    async def work() -> None:
        keeper = Gatekeeper(door.book, clock=door.clock, passwords=Counted(RFC_9106_LOW_MEMORY))
        assert (await keeper.sign_in(Credentials("ada", PASSWORD), HERE, "/")).user == "ada"
        keeper.close()

    door.run(work)
    assert "could not be renewed: no space left" in caplog.text


# -- tokens, certificates, the one-time credential


def test_a_token_is_used_in_place_of_its_user_s_password(door: Door) -> None:
    door.book.add_user("bob", None)
    token, text = door.book.add_token("ada", DAY)

    async def work() -> None:
        ada = await door.enter(secret=text)
        assert ada.expires == token.expires and ada.may(Right.WRITE, "/", "mail") and ada.has_token
        assert door.passwords.runs == []
        assert "expired" not in await door.refused("bob", text)
        await door.refused(secret=text[:-1] + ("a" if text[-1] != "a" else "b"))
        await door.refused(secret="pst_000000000000_" + "a" * 43)
        door.book.revoke_token(token.id)
        await door.refused(secret=text)
        assert not ada.still_valid(door.clock.time()) and not ada.may(Right.WRITE, "/", "mail")

    door.run(work)


def test_only_who_knows_the_secret_hears_that_a_token_expired(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    door.book.add_user("bob", None)
    token, text = door.book.add_token("ada", DAY)

    async def work() -> None:
        ada = await door.enter(secret=text)
        door.clock.advance(DAY)
        assert not ada.still_valid(door.clock.time())
        for _ in range(50):  # no guess, so never throttled
            told = await door.refused(secret=text)
            assert f"pst_{token.id} expired on 2023-11-15 22:13 UTC" in told and "tokens create" in told
        assert "expired" not in await door.refused(secret=f"pst_{token.id}_" + "a" * 43)
        assert "expired" not in await door.refused("bob", text)

    door.run(work)
    assert f"user 'ada', namespace '/': the token pst_{token.id} expired on" in caplog.text
    assert "has another secret" in caplog.text and "is 'ada''s" in caplog.text
    assert text.split("_", 2)[2] not in caplog.text


def test_a_wrong_token_is_throttled_and_a_right_one_never(door: Door) -> None:
    text = door.book.add_token("ada", DAY)[1]

    async def work() -> None:
        for _ in range(signing_in.PAIR_ALLOWANCE):
            await door.refused(secret="pst_000000000000_" + "a" * 43)
        assert "too many" in await door.refused(secret="pst_000000000000_" + "a" * 43)
        assert "too many" in await door.refused()
        await door.enter(secret=text)
        await door.enter()

    door.run(work)


def test_a_certificate_is_enough_for_the_user_whose_name_it_has(door: Door) -> None:
    async def work() -> None:
        ada = await door.enter("ada", "", certificate="ada")
        assert ada.may(Right.READ, "/", "mail") and door.passwords.runs == []
        await door.refused("ada", "", certificate="bob")
        await door.refused("eve", "", certificate="eve")
        await door.refused("ada", "wrong horse", certificate="ada")  # what is given must be right
        await door.enter("ada", certificate="bob")
        await door.refused("ada", "", certificate="")
        await door.refused("bootstrap", "", certificate="bootstrap")
        door.book.set_password("ada", None)
        assert ada.still_valid(door.clock.time())
        door.book.delete_user("ada")
        assert not ada.still_valid(door.clock.time())

    door.run(work)


def test_the_one_time_credential_makes_the_first_administrator_and_is_gone(door: Door) -> None:
    async def work() -> None:
        await door.refused("bootstrap", "x" * 43)
        given = door.book.bootstrap()
        assert given is not None
        first = await door.enter(*given)
        assert first.administrator and first.monitors and not first.may(Right.READ, "/", "mail")
        await door.refused("bootstrap", given.secret + "x")
        await door.refused("ada", given.secret)
        door.book.tag_user("ada", ["administrator"])
        assert not first.administrator and not first.still_valid(door.clock.time())
        await door.refused(*given)

    door.run(work)


def test_the_one_time_credential_ends_after_a_day(door: Door) -> None:
    given = door.book.bootstrap()
    assert given is not None

    async def work() -> None:
        door.clock.advance(DAY - 1)
        first = await door.enter(*given)
        door.clock.advance(1)
        assert not first.still_valid(door.clock.time())
        assert "expired on" in await door.refused(*given)

    door.run(work)


def test_who_has_a_tag_needs_no_permission_to_come_in(door: Door) -> None:
    door.book.add_user("watcher", door.passwords.hash(PASSWORD), ["monitoring"])

    async def work() -> None:
        watcher = await door.enter("watcher")
        assert watcher.monitors and not watcher.administrator and not watcher.may(Right.READ, "/", "mail")
        door.book.permit("watcher", Permission("/", "", "", "mail"))
        assert watcher.may(Right.READ, "/", "mail")

    door.run(work)


def test_secrets_are_in_no_repr() -> None:
    assert PASSWORD not in repr(Credentials("ada", PASSWORD))


def test_a_token_says_by_itself_whose_it_is(door: Door) -> None:
    async def work() -> None:
        _, text = door.book.add_token("ada", DAY)
        assert (await door.enter("", text)).user == "ada"
        assert (await door.enter("", text, certificate="gateway")).user == "ada"
        await door.refused("", text[:-1] + ("A" if text[-1] != "A" else "B"))
        await door.refused("", PASSWORD)
        await door.refused("", "")

    door.run(work)
