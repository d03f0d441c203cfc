"""A full queue is no error of a view: Django would make it 500 before any middleware of WSGI or ASGI could see it."""

from __future__ import annotations

from collections.abc import Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse

from penstock.contrib.queue_full import STATUS, body, headers
from penstock.errors import QueueFull


class BackPressure:
    """Middleware of Django: a `QueueFull` that a view lets through is a 503 with Retry-After."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, QueueFull):
            return None
        return HttpResponse(body(error), status=STATUS, headers=headers(error), content_type="text/plain")
