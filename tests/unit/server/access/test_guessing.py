"""Who guesses is made to wait, and nobody else is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.server.access import signing_in
from penstock.server.access.throttle import LONGEST
from penstock.server.access.tokens import DAY
from tests.unit.server.access.kit import ALL, HERE, PASSWORD, Door


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def test_who_guesses_waits_longer_each_time(door: Door) -> None:
    async def work() -> None:
        for attempt in range(signing_in.PAIR_ALLOWANCE):
            assert "too many" not in await door.refused(secret=f"wrong horse {attempt}")
        waits = []
        for attempt in range(9):
            told = await door.refused(secret=f"wrong horse again {attempt}")
            waits.append(int(told.rpartition("in ")[2].removesuffix(" s")))
            door.clock.advance(waits[-1])
            assert "too many" not in await door.refused(secret=f"wrong horse more {attempt}")
        assert waits == [1, 2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST]

    door.run(work)


def test_who_must_wait_costs_no_argon2_even_with_the_right_password(door: Door) -> None:
    async def work() -> None:
        for attempt in range(signing_in.PAIR_ALLOWANCE):
            await door.refused(secret=f"wrong horse {attempt}")
        runs = len(door.passwords.runs)
        assert "try again in 1 s" in await door.refused()
        assert len(door.passwords.runs) == runs
        door.clock.advance(1)
        await door.enter()
        for attempt in range(signing_in.PAIR_ALLOWANCE - 1):  # the success has forgiven
            assert "too many" not in await door.refused(secret=f"wrong horse {attempt}")
        await door.enter()

    door.run(work)


def test_guesses_that_are_made_at_once_are_counted_before_they_are_known(door: Door) -> None:
    async def work() -> None:
        told = await asyncio.gather(*(door.refused(secret=f"wrong horse {at}") for at in range(50)))
        assert sum("too many" in text for text in told) == 50 - signing_in.PAIR_ALLOWANCE
        assert len(door.passwords.runs) == signing_in.PAIR_ALLOWANCE

    door.run(work)


def test_an_unknown_user_is_throttled_as_a_known_one(door: Door) -> None:
    async def work() -> None:
        told = {}
        for user in ("ada", "eve"):
            answers = [await door.refused(user, f"wrong horse {at}") for at in range(8)]
            told[user] = [text.replace(user, "…") for text in answers]
        assert told["ada"] == told["eve"]

    door.run(work)


def test_an_address_that_tries_many_users_waits(door: Door) -> None:
    async def work() -> None:
        for at in range(signing_in.ADDRESS_ALLOWANCE):
            await door.refused(f"user{at}", "wrong horse")
        assert "too many" in await door.refused("another", "wrong horse")
        assert "too many" in await door.refused("ada", PASSWORD)
        await door.enter(address="198.51.100.7")

    door.run(work)


def test_a_network_of_ipv6_is_one_address(door: Door) -> None:
    async def work() -> None:
        for at in range(signing_in.PAIR_ALLOWANCE):
            await door.refused(secret=f"wrong horse {at}", address=f"2001:db8::{at}")
        assert "too many" in await door.refused(address="2001:db8::ffff")
        await door.enter(address="2001:db8:0:1::1")
        for at in range(signing_in.USER_ALLOWANCE):
            await door.refused(secret=f"wrong horse {at}", address=f"10.0.0.{at}")
        assert (await door.enter(address="2001:db8:0:1::2")).address == "2001:db8:0:1::2"
        assert "too many" in await door.refused(address="2001:db8:0:3::1")

    door.run(work)


def test_a_client_that_never_learns_keeps_nobody_else_out(door: Door) -> None:
    """One worker with a wrong password must not lock out its host, nor its user elsewhere."""
    door.book.add_user("bob", door.passwords.hash(PASSWORD))
    door.book.permit("bob", ALL)

    async def work() -> None:
        for attempt in range(100):
            door.clock.advance(LONGEST)
            assert "too many" not in await door.refused(secret=f"wrong horse {attempt}")
        await door.enter("bob")
        await door.enter(address="198.51.100.7")

    door.run(work)


def test_many_addresses_that_guess_one_user_wait_and_who_was_there_before_does_not(door: Door) -> None:
    async def work() -> None:
        await door.enter()
        for at in range(signing_in.USER_ALLOWANCE):
            await door.refused(secret=f"wrong horse {at}", address=f"10.0.0.{at}")
        assert "too many" in await door.refused(address="10.0.1.1")
        await door.enter()
        assert "too many" in await door.refused(secret="wrong horse", address=HERE)
        token = door.book.add_token("ada", DAY)[1]
        await door.enter(secret=token, address="10.0.1.1")

    door.run(work)
