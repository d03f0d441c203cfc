"""Where a call goes: the call says, else its task, else the routes, else the settings."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import ConfigError, Penstock, Queue, UnknownQueue, worker_direct
from penstock.message import Message
from penstock.routing import read_routes
from penstock.worker import WorkerOptions


def dotted(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> str:
    return "dotted"


@pytest.fixture
def apps() -> Iterator[Any]:
    made: list[Penstock] = []

    def make(**settings: Any) -> Penstock:
        made.append(Penstock("shop", broker="memory://", **settings))
        return made[-1]

    yield make
    for app in made:
        app.close()


def message(app: Penstock, name: str, *args: Any, **options: Any) -> Message:
    """What would be published for `name`, be it known or not."""
    task = app.tasks.get(name)
    if task is None:
        return app.client.prepare_unknown(name, args, {}, options)
    return app.client.prepare(task, args, {}, options)


def test_the_call_is_stronger_than_the_task_and_the_task_than_the_route(apps: Any) -> None:
    app = apps(task_routes={"*": {"queue": "route", "priority": 7}}, task_default_queue="default")
    app.task(name="mine", queue="task", priority=2)(lambda: None)
    app.task(name="open")(lambda: None)
    assert (message(app, "mine").queue, message(app, "mine").priority) == ("task", 2)
    assert message(app, "mine", queue="call").queue == "call"
    assert (message(app, "open").queue, message(app, "open").priority) == ("route", 7)
    assert (message(app, "open", queue="call", priority=1).queue) == "call"
    assert message(app, "unknown").queue == "route"
    assert message(app, "unknown", queue="call").queue == "call"
    assert message(app, "open", queue=None).queue == "route"


def test_without_a_route_that_fits_the_default_queue_is_taken(apps: Any) -> None:
    app = apps(task_routes={"mail.*": "mail"}, task_default_queue="rest")
    app.task(name="web.show")(lambda: None)
    assert message(app, "web.show").queue == "rest"
    assert message(app, "web.hide").queue == "rest"
    assert message(app, "mail.send").queue == "mail"


def test_the_first_route_with_an_answer_decides(apps: Any) -> None:
    def heavy(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        return "heavy" if args and args[0] > 1000 else None

    app = apps(task_routes=[heavy, {re.compile(r"math\.(add|sub)"): "light"}, {"*": {"queue": "rest"}}])
    app.task(name="math.add")(lambda x: x)
    assert [message(app, "math.add", x).queue for x in (1, 5000)] == ["light", "heavy"]
    assert [message(app, "math.mul", x).queue for x in (1, 5000)] == ["rest", "heavy"]


def test_a_function_is_told_of_the_call(apps: Any) -> None:
    told = []

    def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        told.append((name, args, dict(kwargs), options, task))
        return {"queue": "q", "priority": 9}

    app = apps(task_routes=route)
    task = app.task(name="known", expires=60)(lambda x, y: x)
    sent = app.client.prepare(task, (1,), {"y": 2}, {"countdown": 5, "queue": None})
    assert (sent.queue, sent.priority) == ("q", 9)
    assert told == [("known", (1,), {"y": 2}, {"countdown": 5}, task)]
    message(app, "unknown")
    assert told[1] == ("unknown", (), {}, {}, None)


def test_a_route_chooses_more_than_a_queue_and_it_goes_with_the_message(apps: Any) -> None:
    route = {"queue": "slow", "time_limit": 30, "partition": "p", "headers": {"by": "route"}, "serializer": "msgpack"}
    app = apps(task_routes={"a": route})
    app.task(name="a", time_limit=5)(lambda: None)
    sent = message(app, "a")
    assert (sent.queue, sent.partition, sent.headers, sent.content_type) == ("slow", "p", {"by": "route"}, "msgpack")
    assert sent.options is None, "the task says a time limit of its own"
    options = message(app, "a", time_limit=7).options
    assert options is not None and options.time_limit == 7


def test_a_function_may_be_named_and_is_imported_when_it_is_asked(apps: Any) -> None:
    app = apps(task_routes=f"{__name__}.dotted")
    assert message(app, "x").queue == "dotted"
    later = apps(task_routes=["nowhere.route"])
    with pytest.raises(ConfigError, match="there is no module 'nowhere'"):
        message(later, "x")


@pytest.mark.parametrize(
    ("routes", "error"),
    [
        (5, "task_routes is a dictionary by task name"),
        ([5], "task_routes is a dictionary by task name.*not 5"),
        ({"a": 5}, r"task_routes\['a'\] must be a queue's name, or a dictionary of options, not 5"),
        ({"a": {"qeue": "b"}}, r"task_routes\['a'\]: a route cannot choose 'qeue'; did you mean 'queue'\?"),
        ({"a": {"task_id": "b"}}, r"a route cannot choose 'task_id'"),
        ({"a": {"priority": 11}}, r"task_routes\['a'\]: priority must be"),
        ({"a": ""}, r"task_routes\['a'\]: a queue's name must be"),
        ({5: "a"}, "not 5"),
    ],
    ids=str,
)
def test_bad_routes_are_refused_when_they_are_set(routes: Any, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Penstock("shop", broker="memory://", task_routes=routes)


def test_what_a_function_says_is_checked_too(apps: Any) -> None:
    def wrong(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        return 7

    with pytest.raises(ConfigError, match=r"what the route .*wrong said of 'x' must be a queue's name"):
        message(apps(task_routes=wrong), "x")


def test_pairs_keep_an_order_and_a_queue_is_as_good_as_its_name() -> None:
    (table,) = read_routes([[("a.*", Queue("one")), ("a.b*", "two")]])
    assert not callable(table)
    assert table.first("a.bc") == {"queue": "one"}


def test_a_route_to_a_queue_that_must_be_declared(apps: Any) -> None:
    app = apps(task_routes={"a": "lost", "b": "found"}, task_queues=["found"], task_create_missing_queues=False)
    with pytest.raises(UnknownQueue, match="queue 'lost' is not declared; known: default, found; add it"):
        app.task(name="a")(lambda: None)
    assert app.task(name="b")(lambda: None).options.queue == "found"
    with pytest.raises(UnknownQueue):
        message(app, "a")


def test_an_alias_is_the_queue(apps: Any) -> None:
    app = apps(task_queues=[Queue("mail-2", alias="mail")], task_routes={"a": "mail"}, task_create_missing_queues=False)
    assert app.task(name="a")(lambda: None).options.queue == "mail-2"
    assert app.task(name="b", queue="mail")(lambda: None).options.queue == "mail-2"
    assert message(app, "c", queue="mail").queue == "mail-2"
    assert WorkerOptions(queues=("mail",)).settle(app).queues == ("mail-2",)
    app.pause_queue("mail")
    assert [queue.paused for queue in app.engine.run(app.engine.inspect.queues()) if queue.name == "mail-2"] == [True]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"task_queues": [Queue("a", alias="b"), "b"]}, "queue 'b' is declared twice"),
        ({"task_queues": [Queue("a", alias="c"), Queue("b", alias="c")]}, "queue 'c' is declared twice"),
        ({"task_queues": [Queue("a", alias="d")], "task_default_queue": "d"}, "'d' is an alias: write 'a'"),
        ({"task_queues": [{"name": "a", "max_lenght": 5}]}, "no 'max_lenght'; did you mean 'max_length'"),
        ({"task_queues": [{"max_length": 5}]}, "has no name"),
        (
            {"task_queues": [{"name": "a", "max_length": "5"}]},
            "max_length must be from 1 to 9223372036854775807, not '5'",
        ),
        ({"task_queues": [5]}, "not 5"),
    ],
    ids=str,
)
def test_bad_queues_are_refused(settings: Any, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Penstock("shop", broker="memory://", **settings)


def test_a_worker_serves_where_its_tasks_are_routed_to(apps: Any) -> None:
    app = apps(task_queues=["declared"], task_routes=[{"a": "by-table"}, dotted, {"b": "after-a-function"}])
    for name in "abc":
        app.task(name=name)(lambda: None)
    app.task(name="d", queue="own")(lambda: None)
    assert WorkerOptions().settle(app).queues == ("default", "declared", "by-table", "after-a-function", "own")


def test_a_worker_has_a_queue_of_its_own(apps: Any) -> None:
    app = apps(worker_direct=True, task_create_missing_queues=False)
    options = WorkerOptions(name="mail@here")
    assert options.settle(app).queues == ("mail@here.direct", "default")
    assert message(app, "x", queue=worker_direct("mail@here")).queue == "mail@here.direct"
    without = apps(task_create_missing_queues=False)
    assert options.settle(without).queues == ("default",)
    with pytest.raises(UnknownQueue):
        message(without, "x", queue=worker_direct("mail@here"))


def test_what_a_worker_is_not_told_the_settings_say(apps: Any) -> None:
    app = apps(worker_pool="threads", worker_max_tasks_per_child=5, worker_max_memory_per_child=6)
    settled = WorkerOptions().settle(app)
    assert (settled.pool, settled.max_tasks_per_child, settled.max_memory_per_child) == ("threads", 5, 6)
    told = WorkerOptions(pool="solo", max_tasks_per_child=1, max_memory_per_child=2).settle(app)
    assert (told.pool, told.max_tasks_per_child, told.max_memory_per_child) == ("solo", 1, 2)


def test_priority_of_the_calling_task_is_inherited_where_nobody_says_another(apps: Any) -> None:
    app = apps(task_inherit_parent_priority=True, task_routes={"routed": {"priority": 2}})
    sent: list[int] = []

    @app.task(name="child")
    def child() -> None: ...

    @app.task(name="firm", priority=1)
    def firm() -> None: ...

    @app.task(name="routed")
    def routed() -> None: ...

    @app.task(name="parent")
    def parent() -> None:
        sent.extend(app.client.prepare(task, (), {}).priority for task in (child, firm, routed))
        sent.append(app.client.prepare(child, (), {}, {"priority": 3}).priority)
        sent.append(app.client.prepare_unknown("unknown", (), {}, {}).priority)

    parent.apply(priority=8)
    assert sent == [8, 1, 2, 3, 8]
    assert app.client.prepare(child, (), {}).priority == 5
