"""Guards that cannot be kept are refused, wherever they come from."""

from __future__ import annotations

import math

import pytest

from penstock.errors import ConfigError
from penstock.guarding import FASTEST, FOREVER, MAX_GUARDS, MAX_KEY, MOST, check_guards
from penstock.message import MAX_NAME, Dedup, Fence, Guard, Limit, Unique

GOOD: list[Guard] = [
    Unique("k"),
    Unique("k", "ttl", 5.0),
    Unique("k", "start", None, "cancel"),
    Dedup("k", 0.0),
    Fence("k", 1),
    Limit("k"),
    Limit("k", rate=FASTEST, burst=0.5, cost=0.1),
    Limit("k" * MAX_NAME, rate=1 / FOREVER, concurrency=1),
    Limit("k", rate=1_000.0, burst=float(MOST), concurrency=MOST, cost=float(MOST)),
]

BAD: list[tuple[Guard, str]] = [
    (Unique(""), "1 to 1000 characters"),
    (Unique("k" * (MAX_KEY + 1)), "1 to 1000 characters"),
    (Unique("k", ttl=-1.0), "ttl of a unique key"),
    (Unique("k", ttl=math.nan), "ttl of a unique key"),
    (Unique("k", "ttl"), "needs a ttl"),
    (Dedup("k", math.inf), "ttl of a dedup key"),
    (Fence("", 1), "1 to 1000 characters"),
    (Limit(""), "1 to 200 bytes"),
    (Limit("ü" * 101), "1 to 200 bytes"),
    (Limit("k", rate=0.0), "rate must be more than 0"),
    (Limit("k", rate=-1.0), "rate must be more than 0"),
    (Limit("k", rate=math.nan), "rate must be more than 0"),
    (Limit("k", rate=math.inf), "at most 1,000,000 a second"),
    (Limit("k", rate=1e-9), "more than ten years"),
    (Limit("k", rate=0.001, cost=1e9), "more than ten years"),
    (Limit("k", burst=0.0), "burst of a limit must be"),
    (Limit("k", burst=math.nan), "burst of a limit must be"),
    (Limit("k", concurrency=0), "concurrency must be between 1 and"),
    (Limit("k", concurrency=MOST + 1), "concurrency must be between 1 and"),
    (Limit("k", cost=0.0), "cost of a limited task must be"),
    (Limit("k", cost=-math.inf), "cost of a limited task must be"),
    (Limit("k", cost=math.inf), "cost of a limited task must be"),
]


@pytest.mark.parametrize("guard", GOOD)
def test_fit(guard: Guard) -> None:
    check_guards("t", (guard,))


@pytest.mark.parametrize(("guard", "why"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_refused(guard: Guard, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_guards("t", (guard,))


def test_one_limit_and_not_too_many_guards() -> None:
    with pytest.raises(ConfigError, match="2 limits"):
        check_guards("t", (Limit("a"), Limit("b")))
    with pytest.raises(ConfigError, match="9 guards"):
        check_guards("t", tuple(Unique(str(n)) for n in range(MAX_GUARDS + 1)))
