"""Which calls count as the same one."""

from typing import Any

import pytest

from penstock import ConfigError, Unique
from penstock.codec import Arguments
from penstock.keys import Given
from penstock.message import MAX_NAME
from penstock.unique import debounce, singleton, throttle, unique_of
from tests.unit.fake_engine import fake_app


def function(user: int, kind: str = "full", *, options: dict[str, int] | None = None) -> None: ...


ARGUMENTS = Arguments("t", function)


def key(unique: Unique, *args: Any, **kwargs: Any) -> str:
    return unique.guard(Given("t", ARGUMENTS, args, kwargs)).key


def test_true_is_the_name_and_all_arguments_however_they_are_written() -> None:
    same = {
        key(Unique(), 1, options={"a": 1, "b": 2}),
        key(Unique(), user=1, kind="full", options={"b": 2, "a": 1}),
    }
    assert len(same) == 1
    assert same.pop().startswith("t:")
    assert key(Unique(), 1) != key(Unique(), 2)
    assert key(Unique(), 1) != Unique().guard(Given("other", ARGUMENTS, (1,), {})).key


def test_templates_and_functions() -> None:
    assert key(Unique("import:{user}:{kind}"), 5) == "import:5:full"
    assert key(Unique(lambda user, **_: f"u{user}"), 5, kind="x") == "u5"


@pytest.mark.parametrize(
    ("unique", "error"),
    [
        (
            Unique("{usr}"),
            r"unique key '\{usr\}' cannot be filled from the arguments \(user, kind, options\): KeyError",
        ),
        (Unique("{}"), "IndexError"),
        (Unique("{user"), "ValueError"),
        (Unique(lambda user: 5), "returned 5; it must return a non-empty string"),  # type: ignore[arg-type,return-value]
        (Unique(lambda user: ""), "non-empty string"),
    ],
    ids=["name", "position", "brace", "number", "empty"],
)
def test_a_key_that_cannot_be_made(unique: Unique, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        key(unique, 1)


def test_a_long_key_becomes_its_digest() -> None:
    one, two = key(Unique("{kind}"), 1, "x" * 1000), key(Unique("{kind}"), 1, "x" * 1001)
    assert one != two
    assert len(one) <= MAX_NAME


def test_the_guard_carries_the_rest() -> None:
    guard = Unique("k", until="start", ttl=5, on_conflict="raise").guard(Given("t", ARGUMENTS, (1,), {}))
    assert (guard.key, guard.until, guard.ttl, guard.on_conflict) == ("k", "start", 5, "raise")


def test_a_task_that_is_not_known_here() -> None:
    assert (
        Unique().guard(Given("far", None, (1,), {"a": 2})).key == Unique().guard(Given("far", None, (1,), {"a": 2})).key
    )
    assert Unique("{a}").guard(Given("far", None, (1,), {"a": 2})).key == "2"
    with pytest.raises(ConfigError, match="cannot be filled"):
        Unique("{b}").guard(Given("far", None, (1,), {"a": 2}))


@pytest.mark.parametrize(
    "bad",
    [
        {"key": ""},
        {"key": False},
        {"key": 5},
        {"until": "end"},
        {"on_conflict": "wait"},
        {"ttl": 0},
        {"ttl": -1},
        {"until": "ttl"},
        {"delay": 0},
        {"ttl": float("inf")},
    ],
    ids=str,
)
def test_bad_options(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="unique"):
        Unique(**bad)


def test_short_forms() -> None:
    assert unique_of(None) is unique_of(False) is None
    assert unique_of(True) == Unique()
    assert unique_of("k") == Unique("k")
    assert unique_of(Unique("k")) == Unique("k")


def test_what_they_are_called_elsewhere() -> None:
    assert singleton() == Unique()
    assert singleton("k", "cancel") == Unique("k", on_conflict="cancel")
    assert throttle(5, "k") == Unique("k", "ttl", 5, "skip")
    assert debounce(5, "k") == Unique("k", "start", None, "replace", 5)


def test_a_debounced_call_waits_unless_it_says_when() -> None:
    app, engine = fake_app()
    task = app.task(name="t", unique=debounce(30, "k"))(lambda: None)
    task.delay()
    task.apply_async(countdown=5)
    task.apply_async(unique=False)
    assert [message.eta and round(message.eta - message.sent) for message in engine.broker.messages] == [30, 5, None]
