"""Settings: known, checked, and frozen."""

from datetime import timedelta
from typing import Any, get_type_hints

import pytest

from penstock import ConfigError, Queue, UnknownQueue
from penstock.config import Config, Settings, read_config


def test_settings_and_their_types_are_the_same_set() -> None:
    assert set(get_type_hints(Settings)) == set(Config.__struct_fields__)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"broker_ulr": "memory://"}, "unknown setting 'broker_ulr'; did you mean 'broker_url'"),
        ({"broker_url": "queue.db"}, "broker_url must be a URL such as sqlite:///queue.db, not 'queue.db'"),
        ({"durability": "full"}, "durability must be 'power', 'process' or 'strict', not 'full'"),
        ({"publish_timeout": 0}, "publish_timeout must be a number of seconds above 0, not 0"),
        ({"lease": "30"}, "lease must be a number of seconds"),
        ({"result_expires": -1}, "result_expires must be"),
        ({"result_expires": timedelta(0)}, "result_expires must be"),
        ({"result_max_bytes": 0}, "result_max_bytes must be at least 1"),
        ({"max_attempts": 1.5}, "max_attempts must be at least 1"),
        ({"worker_concurrency": 0}, "worker_concurrency must be"),
        ({"task_ignore_result": 1}, "task_ignore_result must be True or False, not 1"),
        ({"task_default_priority": 10}, "priority must be"),
        ({"task_default_queue": ""}, "queue's name"),
        ({"namespace": "a b "}, "namespace name"),
        (
            {"task_serializer": "pickle"},
            "'pickle' is not in accept_content: whoever can write to the queue could run code",
        ),
        ({"task_time_limit": 1, "task_soft_time_limit": 2}, "must be less than time_limit"),
        ({"task_queues": "mail"}, "task_queues must be a list, not the string 'mail'"),
        ({"task_queues": ["a", Queue("a")]}, "queue 'a' is declared twice"),
        ({"imports": "tasks"}, "imports must be a list"),
        ({"result_exceptions": [OSError]}, "result_exceptions must be a tuple of exception classes"),
        ({"result_backend": "redis"}, "result_backend must be a URL such as redis://localhost:6379/1, not 'redis'"),
    ],
    ids=str,
)
def test_bad_settings_name_the_value_and_the_rule(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        read_config(settings)


def test_settings_are_frozen() -> None:
    conf: Any = read_config({})
    with pytest.raises(AttributeError, match=r"app.conf is frozen: call app.configure\(lease=…\)"):
        conf.lease = 5
    with pytest.raises(AttributeError, match="frozen"):
        del conf.lease
    assert conf.lease == 30


def test_queues_include_the_default_one() -> None:
    assert [queue.name for queue in read_config({"task_queues": ["a"]}).queues] == ["default", "a"]
    mine = Queue("default", max_length=5)
    assert read_config({"task_queues": [mine]}).queues == (mine,)


def test_missing_queues_are_created_unless_told_otherwise() -> None:
    assert read_config({}).check_queue("new") == "new"
    strict = read_config({"task_create_missing_queues": False})
    assert strict.check_queue("default") == "default"
    with pytest.raises(UnknownQueue, match=r"queue 'new' is not declared; known: default; add it to task_queues"):
        strict.check_queue("new")
