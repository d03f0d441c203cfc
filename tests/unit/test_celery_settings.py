"""Each setting of Celery is one here, or has a remedy."""

import re

import pytest

from penstock import ConfigError, Penstock
from penstock.celery_settings import ARGUMENTS, FAMILIES, INSTEAD, instead, new_name
from penstock.config import Config
from tools import celery_tables

CELERY = celery_tables.names_of(celery_tables.SETTINGS)
KNOWN = Config.__struct_fields__


@pytest.mark.parametrize("name", CELERY)
def test_each_is_here_or_says_what_to_use_instead(name: str) -> None:
    assert name in KNOWN or instead(name)


def test_remedies_are_for_names_that_celery_has_and_that_are_none_here() -> None:
    assert set(INSTEAD) <= set(CELERY)
    assert not set(INSTEAD) & set(KNOWN)
    assert all(any(name.startswith(start) for name in CELERY) for start in FAMILIES)


def test_each_argument_of_an_app_is_here_or_says_what_to_use_instead() -> None:
    arguments = " ".join(
        name for name in celery_tables.names_of("The app and its configuration") if name.startswith("Celery(")
    )
    names = set(re.findall(r"\w+", arguments.replace("Celery(", ""))) - {"main", "broker", "include", "namespace"}
    assert names == set(ARGUMENTS)
    for name in names:
        with pytest.raises(ConfigError, match=re.escape(f"Celery's {name!r} is no setting here: {ARGUMENTS[name]}")):
            Penstock("shop", **{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BROKER_URL", "broker_url"),
        ("BROKER_POOL_LIMIT", "broker_pool_limit"),
        ("CELERY_IMPORTS", "imports"),
        ("CELERY_ROUTES", "task_routes"),
        ("CELERY_QUEUES", "task_queues"),
        ("CELERY_ANNOTATIONS", "task_annotations"),
        ("CELERY_DEFAULT_QUEUE", "task_default_queue"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
        ("CELERY_ACKS_LATE", "task_acks_late"),
        ("CELERY_WORKER_DIRECT", "worker_direct"),
        ("CELERYD_MAX_TASKS_PER_CHILD", "worker_max_tasks_per_child"),
        ("CELERYD_TASK_TIME_LIMIT", "task_time_limit"),
        ("CELERYBEAT_SCHEDULE", "beat_schedule"),
        ("CELERY_TIMEZONE", "timezone"),
        ("TASK_TIME_LIMIT", "task_time_limit"),
        ("REDIS_HOST", None),
        ("DEBUG", None),
        ("task_time_limit", None),
    ],
)
def test_old_names_have_new_ones(old: str, new: str | None) -> None:
    assert new_name(old, KNOWN) == new
