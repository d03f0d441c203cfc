"""A full queue in a view of Django is a 503, for plain views and coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import QueueFull
from tests.transactions.callers import django_default

FULL = QueueFull("mail", 10, 10, 3.2)


@pytest.fixture
def called(tmp_path: Path) -> Iterator[Any]:
    """What a client is answered by a view of that kind, which raises that."""
    with django_default({"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.sqlite3")}):
        from django.core.handlers.base import BaseHandler
        from django.test import RequestFactory, override_settings
        from django.urls import path

        def call(error: Exception, *, asynchronous: bool) -> Any:
            def plain(request: Any) -> None:
                raise error

            async def coroutine(request: Any) -> None:
                raise error

            class Urls:
                urlpatterns = (path("orders", coroutine if asynchronous else plain),)

            with override_settings(
                ROOT_URLCONF=Urls, MIDDLEWARE=["penstock.contrib.django.BackPressure"], ALLOWED_HOSTS=["testserver"]
            ):
                handler = BaseHandler()
                handler.load_middleware(is_async=asynchronous)
                request = RequestFactory().post("/orders")
                if asynchronous:
                    return asyncio.run(handler.get_response_async(request))
                return handler.get_response(request)

        yield call


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_queue_asks_to_come_again(called: Any, asynchronous: bool) -> None:
    answer = called(FULL, asynchronous=asynchronous)
    assert (answer.status_code, answer["Retry-After"], answer["Content-Type"]) == (503, "4", "text/plain")
    assert b"queue 'mail' is full" in answer.content


def test_other_errors_are_djangos(called: Any) -> None:
    assert called(LookupError("nothing there"), asynchronous=False).status_code == 500
