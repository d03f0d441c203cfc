"""Queues and routes by Celery's names, down to the queue in which a call waits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from penstock import Exchange, Penstock, Queue


def test_routes_queues_and_priorities(tmp_path: Path) -> None:
    def by_arguments(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> Any:
        return {"queue": "large"} if args and args[0] > 100 else None

    app = Penstock(
        "shop",
        broker=f"sqlite:///{tmp_path / 'queue.db'}",
        task_default_queue="shop",
        task_default_priority=4,
        task_inherit_parent_priority=True,
        task_create_missing_queues=True,
        task_queues=[Queue("mail", alias="post"), Queue("eu", exchange=Exchange("all", "fanout"))],
        task_routes=[
            by_arguments,
            {"feed.*": "feeds", "named": {"queue": "mail", "priority": 8}},
            {re.compile(r"video\.(cut|join)"): {"queue": "video"}},
        ],
    )
    places = {
        app.send_task("other", (1,)).queue: "shop",
        app.send_task("other", (101,)).queue: "large",
        app.send_task("feed.read").queue: "feeds",
        app.send_task("named").queue: "mail",
        app.send_task("video.cut").queue: "video",
        app.send_task("feed.read", queue="post").queue: "mail",
        app.send_task("feed.read", exchange="all").queue: "eu",
    }
    assert list(places) == [*places.values()]
    [waiting] = app.engine.run(app.engine.inspect.peek("shop"))
    assert waiting.message is not None and waiting.message.priority == 4
    app.close()
