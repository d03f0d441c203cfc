"""What options say of a limit, and what becomes of it in a message."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from penstock import ConfigError, Unsupported, chain
from penstock.limit import rate_of
from penstock.message import Limit
from penstock.options import TaskOptions
from tests.unit.fake_engine import FEATURES, fake_app


def mail(customer: int, text: str = "") -> None: ...


def guards(options: dict[str, Any], call: dict[str, Any] | None = None, **settings: Any) -> tuple[Any, ...]:
    """Those of one call of a task with these options."""
    app, engine = fake_app(**settings)
    app.task(name="mail", **options)(mail).apply_async((7, "hello"), **(call or {}))
    return engine.broker.messages[0].guards


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ("10/s", 10.0),
        ("100/m", 100 / 60),
        ("1000/h", 1000 / 3600),
        ("24/d", 24 / 86_400),
        (" 2.5/s ", 2.5),
        ("50", 50.0),
        (5, 5.0),
        (0.1, 0.1),
        (None, None),
        (0, None),
        ("0/s", None),
    ],
)
def test_rates_as_celery_writes_them(given: Any, rate: float | None) -> None:
    assert rate_of(given) == (None if rate is None else pytest.approx(rate))


@pytest.mark.parametrize("given", ["fast", "10/w", "/s", "1e9/s", "-1/s", -1, "nan", float("inf"), True, [], ""])
def test_no_rates(given: Any) -> None:
    with pytest.raises(ConfigError, match="rate"):
        rate_of(given)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rate_limit": "x"}, "rate_limit must be"),
        ({"rate_limit": 1, "rate_burst": 0}, "burst of a limit must be more than 0"),
        ({"concurrency_limit": 0}, "concurrency_limit must be a whole number"),
        ({"concurrency_limit": True}, "concurrency_limit must be a whole number"),
        ({"rate_limit": 1, "cost": 0}, "cost of a limited task must be more than 0"),
        ({"cost": "2"}, "cost must be a number"),
        ({"rate_limit": 1, "limit_key": ""}, "limit_key must be a template"),
        ({"rate_limit": 1, "limit_key": 5}, "limit_key must be a template"),
        ({"partition": ""}, "partition must be a template"),
        ({"max_snoozes": 0}, "max_snoozes must be"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        TaskOptions(**options)


def test_the_guard_is_what_the_options_say() -> None:
    assert guards({}) == ()
    assert guards({"rate_limit": "10/s"}) == (Limit("mail", 10.0),)
    assert guards({"concurrency_limit": 3}) == (Limit("mail", None, 1.0, 3),)
    assert guards({"rate_limit": 5, "rate_burst": 20, "concurrency_limit": 2, "cost": 1.5}) == (
        Limit("mail", 5.0, 20, 2, 1.5),
    )


def test_keys_and_costs_of_the_arguments() -> None:
    assert guards({"rate_limit": 5, "limit_key": "mail:{customer}"}) == (Limit("mail:7", 5.0),)
    assert guards({"rate_limit": 5, "limit_key": lambda customer, text: f"c{customer}"}) == (Limit("c7", 5.0),)
    assert guards({"rate_limit": 5, "limit_key": lambda customer, text: None}) == (), "None: this call is not limited"
    assert guards({"rate_limit": 5, "cost": lambda customer, text: len(text)}) == (Limit("mail", 5.0, cost=5),)
    assert guards({"rate_limit": 5, "cost": 2}, {"cost": 9}) == (Limit("mail", 5.0, cost=9),)


@pytest.mark.parametrize(
    ("options", "call", "error"),
    [
        ({"rate_limit": 5, "limit_key": "{user}"}, {}, r"limit_key '\{user\}' cannot be filled"),
        ({"rate_limit": 5, "limit_key": "{text}"}, {"args": (7,)}, "came to an empty string"),
        ({"rate_limit": 5, "limit_key": lambda *_: 5}, {}, "must return a non-empty string"),
        ({"rate_limit": 5, "cost": lambda *_: "x"}, {}, "cost function returned 'x'"),
        ({"rate_limit": 5}, {"cost": -1}, "cost of a limited task"),
        ({"partition": "{text}"}, {"args": (7, "a\n")}, "partition name"),
    ],
    ids=["unknown field", "empty", "no string", "no number", "negative", "partition"],
)
def test_keys_and_costs_that_cannot_be_made(options: dict[str, Any], call: dict[str, Any], error: str) -> None:
    app, _ = fake_app()
    task: Any = app.task(name="mail", **options)(mail)
    with pytest.raises(ConfigError, match=error):
        task.apply_async(**{"args": (7, "hello"), **call})


def test_a_cost_that_a_function_makes_is_checked_where_it_is_published() -> None:
    app, _ = fake_app()
    task: Any = app.task(name="mail", rate_limit=5, cost=lambda *_: -1)(mail)
    with pytest.raises(ConfigError, match="cost of a limited task"):
        task.delay(1)


def test_a_partition_of_the_arguments() -> None:
    app, engine = fake_app()
    task = app.task(name="mail", partition="{customer}")(mail)
    task.delay(7)
    task.apply_async((8,), partition="mine")
    assert [message.partition for message in engine.broker.messages] == ["7", "mine"]


def test_settings_limit_tasks_that_say_nothing() -> None:
    assert guards({}, task_default_rate_limit="2/s") == (Limit("mail", 2.0),)
    assert guards({"rate_limit": 0}, task_default_rate_limit="2/s") == ()
    assert guards({}, task_annotations={"ma*": {"rate_limit": "3/s"}}) == (Limit("mail", 3.0),)
    with pytest.raises(ConfigError, match="rate_limit must be"):
        fake_app(task_default_rate_limit="often")


def test_a_task_that_only_workers_know_is_limited_by_settings() -> None:
    app, engine = fake_app(task_annotations={"far": {"rate_limit": "3/s", "limit_key": "{a}"}})
    app.send_task("far", kwargs={"a": "x"}, cost=2)
    app.send_task("other")
    assert [message.guards for message in engine.broker.messages] == [(Limit("x", 3.0, cost=2),), ()]


def test_many_and_batches_are_limited_too() -> None:
    app, engine = fake_app()
    task = app.task(name="mail", rate_limit=5)(mail)
    task.delay_many([(1,), task.s(2)])
    with app.batch():
        task.delay(3)
    assert [message.guards for message in engine.broker.messages] == [(Limit("mail", 5.0),)] * 3


def test_an_engine_without_limits_refuses_and_says_what_to_do() -> None:
    app, _ = fake_app(features=replace(FEATURES, guards=frozenset({"Unique"})))
    task = app.task(name="mail", rate_limit=5)(mail)
    with pytest.raises(Unsupported, match="no Limit guard: leave out rate_limit"):
        task.delay(1)


def test_what_follows_in_a_canvas_is_limited_by_what_is_known_of_its_arguments() -> None:
    app, _ = fake_app()
    before = app.task(name="before")(lambda: 1)

    @app.task(name="after", rate_limit=5, limit_key="{kind}")
    def after(value: int, kind: str) -> None: ...

    client = app.client
    assert client.prepare_after(after, ("a",), {}, {}).guards == (Limit("a", 5.0),)
    unknown = app.task(name="by-value", rate_limit=5, limit_key="{value}")(lambda value: None)
    with pytest.raises(ConfigError, match=r"limit_key '\{value\}' cannot be filled"):
        client.prepare_after(unknown, (), {}, {})
    function = app.task(name="by-function", rate_limit=5, limit_key=lambda value: "x")(lambda value: None)
    with pytest.raises(ConfigError, match="make it a template over the others"):
        app.send(chain(before.s(), function.s()))
