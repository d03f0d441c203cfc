"""Alarms to a URL: one POST of JSON each. The URL may be a secret, and is never logged whole."""

from __future__ import annotations

import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from penstock.loopback import is_loopback
from penstock.pressure.alarms import PressureEvent
from penstock.pressure.webhook_url import check_webhook

TIMEOUT = 5.0
"""Seconds for the connection, and for each piece of an answer."""
PAUSES = (1.0, 5.0)
"""Seconds between the tries; after the last it is given up."""

log = logging.getLogger("penstock.worker")


class Webhook:
    def __init__(self, url: str, app: str, pause: Callable[[float], None] = time.sleep) -> None:
        """Raises `ConfigError`."""
        check_webhook(url)
        self._url = url
        self._app = app
        self._host = urlsplit(url).hostname
        self._pause = pause
        proxies: dict[str, str] | None = (
            {} if is_loopback(self._host or "") else None
        )  # `None`: those of the environment
        self._open = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler(proxies)).open

    def post(self, event: PressureEvent) -> bool:
        """Whether it was taken. Blocks up to about 20 s; never raises."""
        body = msgspec.json.encode({"app": self._app, **msgspec.to_builtins(event)})
        headers = {"content-type": "application/json", "user-agent": "penstock"}
        why = ""
        for pause in (*PAUSES, None):
            try:
                request = urllib.request.Request(self._url, body, headers, method="POST")
                with self._open(request, timeout=TIMEOUT):
                    return True
            except urllib.error.HTTPError as error:
                why = f"it answered {error.code}"
                error.close()
                if error.code < 500 and error.code not in (408, 429):
                    break  # it would say the same again
            except (OSError, ValueError, http.client.HTTPException) as error:
                why = f"{type(error).__name__}: {getattr(error, 'reason', error)}"
            if pause is not None:
                self._pause(pause)
        log.warning("the webhook at %s was not told of %s %s: %s", self._host, event.kind, event.state, why)
        return False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Whoever answers must not send alarms elsewhere."""

    def redirect_request(self, *_: object) -> None:
        """The answer is an error then, of its own code."""
