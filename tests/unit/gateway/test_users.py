"""Users of the broker at the gateway: who is let in, and that what each may do is what the broker says."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2.profiles import CHEAPEST

from penstock import Penstock
from penstock.clock import ManualClock
from penstock.errors import AccessRefused, ConfigError
from penstock.gateway import BrokerUsers, Request
from penstock.gateway import users as users_module
from penstock.gateway.problems import Refused
from penstock.gateway.users import credentials, url_as
from penstock.server.access.book import Book
from penstock.server.access.passwords import Passwords
from penstock.server.access.rights import Permission
from penstock.server.access.signing_in import Credentials
from tests.unit.gateway.faces import Face, Reply
from tests.unit.server.house import PASSWORD, House

BOB, EVE = "bob", "eve"
"""One who may write to `mail`, and one who may do nothing with it."""


def basic(user: str, password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Place:
    """A broker, an app of it that has no user of its own, and a gateway."""

    def __init__(self, house: House, kind: str) -> None:
        self.house = house
        house.permit(BOB, Permission("/", "", "mail", ""))
        house.permit(EVE, Permission("/", "", "sms", "sms"))
        self.app = Penstock("tests", broker=f"penstock://127.0.0.1:{house.port}/")
        self.app.task(name="mail.send", queue="mail")(lambda to: to)
        self.app.task(name="sms.send", queue="sms")(lambda to: to)
        self.clock = ManualClock()
        self.users = BrokerUsers(self.app, most=3, clock=self.clock)
        self.face = Face(kind, self.app, self.users, max_wait=5.0)

    def call(self, task: str, who: str, **headers: str) -> Reply:
        return self.face.post(f"/v1/tasks/{task}", {"args": ["x"]}, authorization=who, **headers)

    def info(self, who: str) -> Reply:
        return self.face.get("/v1/info", authorization=who)

    def change(self, work: Callable[[Book], Any]) -> Any:
        """As the owner of the broker's files."""
        book = Book(self.house.folder)
        try:
            return work(book)
        finally:
            book.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path / "data", gateways=("127.0.0.1",)) as house:
        yield house


@pytest.fixture
def kind() -> str:
    return "asgi"


both = pytest.mark.parametrize("kind", ["asgi", "wsgi"])


@pytest.fixture
def place(house: House, kind: str) -> Iterator[Place]:
    house.broker.gatekeeper._passwords = Passwords(CHEAPEST)
    place = Place(house, kind)
    declared = Penstock("declaring", broker=house.url(), task_queues=["mail", "sms"])
    _ = declared.engine
    declared.close()
    yield place
    place.users.close()


@both
def test_who_may_write_a_queue_calls_its_tasks_and_sees_them(place: Place) -> None:
    accepted = place.call("mail.send", basic(BOB))
    assert accepted.status == 202, accepted.body
    path = accepted.headers["location"]
    assert place.face.get(path, authorization=basic(BOB)).json["state"] == "PENDING"
    refused = place.call("sms.send", basic(BOB))
    assert (refused.status, refused.json["type"]) == (403, "urn:penstock:forbidden")
    assert "no write right on queue 'sms'" in refused.json["detail"]
    for ask in ("GET", "DELETE"):
        assert place.face.ask(ask, path, None, {"authorization": basic(EVE)}).status == 404
    assert place.face.ask("DELETE", path, None, {"authorization": basic(BOB)}).json["revoked"] == "removed"
    assert place.info(basic(BOB)).json["user"] == BOB
    document = place.face.get("/v1/openapi.json", authorization=basic(BOB)).json
    assert document["security"] == [{"token": []}, {"user": []}]
    assert place.face.asgi.gateway.open == 0


def test_queues_are_chosen_and_seen_as_the_broker_allows(place: Place) -> None:
    def call(queue: str) -> Reply:
        body = {"args": ["x"], "options": {"queue": queue}}
        return place.face.post("/v1/tasks/sms.send", body, authorization=basic(BOB))

    assert (call("mail").status, call("sms").status, call("new").status) == (202, 403, 403)
    assert place.face.get("/v1/queues/mail/backlog", authorization=basic(BOB)).json["backlog"] == 1
    assert place.face.get("/v1/queues/mail/backlog", authorization=basic(EVE)).status == 404


def test_an_idempotency_key_is_each_users_own(place: Place) -> None:
    place.change(lambda book: book.permit(EVE, Permission("/", "", "mail", "")))
    first, again = (place.call("mail.send", basic(BOB), idempotency_key="k").json["id"] for _ in range(2))
    assert first == again
    assert place.call("mail.send", basic(EVE), idempotency_key="k").json["id"] != first


@both
def test_a_token_is_given_as_bearer_and_is_its_users(place: Place) -> None:
    token, text = place.change(lambda book: book.add_token(BOB, 3600.0))
    assert place.info(f"Bearer {text}").json["user"] == BOB
    assert place.info(basic(BOB, text)).status == 200
    assert place.info(basic(EVE, text)).status == 401
    place.change(lambda book: book.revoke_token(token.id))
    assert eventually(lambda: place.info(f"Bearer {text}").status == 401)


def test_nobody_else_is_let_in(place: Place) -> None:
    strange = [
        "",
        "Basic",
        "Basic !",
        "Bearer x",
        "Bearer pst_0_0",
        basic("nobody"),
        basic(BOB, "wrong"),
        basic(BOB, ""),
    ]
    for given in strange:
        reply = place.info(given)
        assert (reply.status, reply.json["type"]) == (401, "urn:penstock:not-signed-in"), given
        assert reply.headers["www-authenticate"].startswith("Bearer, Basic realm=")
    assert place.users.open == 0


def test_who_guesses_waits_and_others_do_not(place: Place) -> None:
    assert place.info(basic(BOB)).status == 200
    assert {place.info(basic(BOB, f"guess {number}")).status for number in range(5)} == {401}
    refused = place.info(basic(BOB, "guess again"))
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert place.info(basic(BOB)).status == 200  # who has a connection
    place.face.address = "192.0.2.9"
    assert place.info(basic(BOB, "from elsewhere")).status == 401


@both
def test_who_is_not_let_in_any_more_is_out_within_a_second_or_two(place: Place) -> None:
    assert place.info(basic(BOB)).status == 200
    place.change(lambda book: book.set_password(BOB, Passwords(CHEAPEST).hash("another one")))
    assert eventually(lambda: place.info(basic(BOB)).status == 401)
    assert place.info(basic(BOB, "another one")).status == 200
    assert place.users.open == 1


def test_a_right_that_is_taken_away_counts_at_once(place: Place) -> None:
    assert place.call("mail.send", basic(BOB)).status == 202
    place.change(lambda book: book.forbid(BOB, "/"))
    place.change(lambda book: book.permit(BOB, Permission("/", "", "sms", "")))
    assert eventually(lambda: place.call("mail.send", basic(BOB)).status == 403)


def test_connections_are_bounded_and_kept(place: Place) -> None:
    for number in range(4):
        place.house.permit(f"user{number}", Permission("/", "", "mail", ""))
    assert [place.info(basic(f"user{number}")).status for number in range(4)] == [200] * 4
    assert place.users.open == 3
    kept = place.users(asked(basic("user3")))
    busy = [place.users(asked(basic(f"user{number}"))) for number in (1, 2)]
    assert all(hasattr(one, "leave") for one in (kept, *busy))
    refused = place.info(basic("user0"))
    assert (refused.status, refused.json["type"]) == (503, "urn:penstock:busy")
    busy[0].leave()  # type: ignore[union-attr]  # it is a caller
    assert place.info(basic("user0")).status == 200


def test_one_user_does_not_take_all_connections(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_module, "EACH", 1)
    _, text = place.change(lambda book: book.add_token(BOB, 3600.0))
    assert place.info(basic(BOB)).status == place.info(f"Bearer {text}").status == 200
    assert place.users.open == 1
    held = place.users(asked(f"Bearer {text}"))
    assert place.info(basic(BOB)).status == 429
    held.leave()  # type: ignore[union-attr]  # it is a caller


def test_those_that_nobody_uses_are_closed(place: Place) -> None:
    assert place.info(basic(BOB)).status == 200
    place.clock.advance(users_module.IDLE + 1)
    assert place.info(basic(EVE)).status == 200
    assert place.users.open == 1


def test_a_broker_that_is_away_is_said_to_be(place: Place) -> None:
    assert place.info(basic(BOB)).status == place.face.get("/health/ready").status == 200
    place.house.listeners.close()
    place.house.run(place.house.broker.close)
    began = time.monotonic()
    assert eventually(lambda: place.info(basic(BOB)).status == 503)
    assert eventually(lambda: place.face.get("/health/ready").status == 503)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("told", ["too many clients sign in: try again in 7 s", "too many failed: try again in 7 s"])
def test_who_was_not_looked_at_comes_again(place: Place, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    """A broker that was started anew verifies the passwords of all of them."""

    def refused(self: object, url: str) -> Penstock:
        raise AccessRefused(told)

    with monkeypatch.context() as patched:
        patched.setattr(Penstock, "signed_in", refused)
        for _ in range(30):
            reply = place.info(basic(BOB))
            assert (reply.status, reply.headers["retry-after"]) == (503, "7")
    assert place.info(basic(BOB)).status == 200


def test_many_who_come_at_once_with_the_same_sign_in_once(place: Place) -> None:
    async def run() -> list[Any]:
        step = place.users(asked(basic(BOB)))
        return await asyncio.gather(*(step.awaited() for _ in range(20)))  # type: ignore[union-attr]  # it is a step

    callers = asyncio.run(run())
    assert len({caller.app for caller in callers}) == 1
    for caller in callers:
        caller.leave()


def test_an_app_needs_a_broker_with_users() -> None:
    with pytest.raises(ConfigError, match="has no users"):
        BrokerUsers(Penstock("tests", broker="memory://"))
    with pytest.raises(ConfigError, match="results are kept elsewhere"):
        BrokerUsers(Penstock("tests", broker="penstock://h/", result_backend="redis://h/"))
    for most in (0, -1, 10**9, 1.5, True):
        with pytest.raises(ConfigError, match="connections of users"):
            BrokerUsers(Penstock("tests", broker="penstock://h/"), most=most)  # type: ignore[arg-type]  # wrong ones too


@pytest.mark.parametrize("given", [basic("ada", ""), basic("", "x"), basic("a\0", "x"), "Basic " + "A" * 10_000, "x"])
def test_what_could_be_the_gateways_own_certificate_is_not_sent(given: str) -> None:
    with pytest.raises(Refused, match="Basic"):
        credentials(asked(given))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("penstock://h:1/", "penstock://a%2Fb:c%40d@h:1/?client=%3A%3A1"),
        ("penstocks://own:secret@h,i:2/shop?ca=x", "penstocks://a%2Fb:c%40d@h,i:2/shop?ca=x&client=%3A%3A1"),
        ("penstock://?socket=/run/x@y", "penstock://a%2Fb:c%40d@?socket=/run/x@y&client=%3A%3A1"),
    ],
)
def test_the_user_takes_the_place_of_the_gateways_own(url: str, expected: str) -> None:
    assert url_as(url, Credentials("a/b", "c@d"), "::1") == expected


def asked(authorization: str) -> Request:
    return Request("GET", "/v1/info", "", {"authorization": authorization}, "127.0.0.1")


def eventually(happened: Callable[[], bool]) -> bool:
    end = time.monotonic() + 15
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
