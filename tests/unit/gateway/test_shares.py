"""Each client's share of a gateway, and how many requests an application takes at a time."""

from __future__ import annotations

import pytest

from penstock.clock import ManualClock
from penstock.errors import ConfigError
from penstock.gateway import GatewaySettings, LittlesLaw, shares
from penstock.gateway.problems import Refused
from penstock.gateway.shares import Shares


def refused(share: Shares, client: str) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        share.enter(client)
    return caught.value.status, caught.value.headers["retry-after"]


def test_a_client_over_its_rate_waits_and_others_do_not() -> None:
    clock = ManualClock()
    share = Shares(GatewaySettings(rate=0.5, burst=3), clock)
    for _ in range(3):
        share.leave(share.enter("ada"))
    assert refused(share, "ada") == (429, "2")
    share.leave(share.enter("bob"))
    clock.advance(2)
    share.leave(share.enter("ada"))
    assert refused(share, "ada")[0] == 429
    clock.advance(1_000)
    for _ in range(3):
        share.leave(share.enter("ada"))
    assert refused(share, "ada")[0] == 429


def test_open_requests_are_bounded_for_each_and_for_all() -> None:
    share = Shares(GatewaySettings(open_requests=3, client_requests=2), ManualClock())
    first, _ = share.enter("ada"), share.enter("ada")
    assert refused(share, "ada")[0] == 429
    share.enter("bob")
    assert refused(share, "bob")[0] == 503
    share.leave(first)
    share.enter("bob")
    assert share.open == 3


def test_strangers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MOST_CLIENTS", 2)
    share = Shares(GatewaySettings(client_requests=1), ManualClock())
    share.enter("ada")
    for number in range(100):
        share.leave(share.enter(f"stranger {number}"))
    assert len(share._accounts) == 2
    assert refused(share, "ada")[0] == 429


class Crowd:
    """Requests that each stay as long as `work` says, served by so many at a time."""

    def __init__(self, target: float, least: int = 2, most: int = 1_000) -> None:
        self.now = 0.0
        self.limiter = LittlesLaw(target, least, most, lambda: self.now)

    def run(self, seconds: float, served: float, offered: float) -> None:
        """`offered` come and up to `served` leave in each second."""
        for _ in range(int(seconds * 10)):
            self.now += 0.1
            for _ in range(min(self.limiter.inside, int(served / 10))):
                self.limiter.leave()
            for _ in range(int(offered / 10)):
                self.limiter.enter()


def test_as_many_are_let_in_as_are_served_within_the_target() -> None:
    crowd = Crowd(target=0.5)
    crowd.run(30, served=200, offered=400)
    assert 80 <= crowd.limiter.limit <= 120  # 200/s for 0.5 s
    assert crowd.limiter.inside <= crowd.limiter.limit
    assert crowd.limiter.enter() is not None
    crowd.run(30, served=50, offered=400)
    assert 20 <= crowd.limiter.limit <= 40


def test_a_quiet_time_is_no_reason_to_take_fewer() -> None:
    crowd = Crowd(target=0.5)
    crowd.run(30, served=200, offered=400)
    crowd.run(60, served=200, offered=10)
    assert crowd.limiter.limit >= 80


def test_a_few_are_always_let_in() -> None:
    crowd = Crowd(target=1.0, least=2)
    assert [crowd.limiter.enter() for _ in range(2)] == [None, None]
    assert crowd.limiter.enter() == 1.0
    crowd.run(10, served=0, offered=50)
    assert crowd.limiter.limit == 2


def test_a_limiter_needs_bounds() -> None:
    for given in ((0.0, 1, 2), (1.0, 0, 2), (1.0, 3, 2)):
        with pytest.raises(ConfigError):
            LittlesLaw(*given)
