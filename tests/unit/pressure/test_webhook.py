"""The webhook, against a real server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from penstock import ConfigError, Penstock
from penstock.pressure.alarms import Alarm, PressureEvent, event
from penstock.pressure.webhook import PAUSES, Webhook

SECRET = "/hook/s3cret"


class Hooked(ThreadingHTTPServer):
    """Answers with what `answers` has, the last one for ever, and keeps what it was sent."""

    answers: list[int]
    got: list[tuple[str, dict[str, Any]]]


class Handler(BaseHTTPRequestHandler):
    server: Hooked

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((self.path, json.loads(body)))
        answers = self.server.answers
        code = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(code)
        if code == 302:
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Hooked]:
    made = Hooked(("127.0.0.1", 0), Handler)
    made.answers, made.got = [204], []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def an_event() -> PressureEvent:
    return event("raised", Alarm("full", "mail", "", 0.75, 0.7, 100.0), "shop", 100.0, "queue 'mail' is 75% full")


def posted(server: Hooked, pauses: list[float] | None = None) -> bool:
    pauses = [] if pauses is None else pauses
    return Webhook(f"http://127.0.0.1:{server.server_port}{SECRET}", "letters", pauses.append).post(an_event())


def test_an_event_is_posted_as_json(server: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # what is on this machine needs none
    assert posted(server)
    [(path, body)] = server.got
    assert path == SECRET
    assert body["text"].startswith("queue 'mail' is 75% full")
    assert {name: body[name] for name in ("app", "state", "kind", "namespace", "queue", "value", "limit")} == {
        "app": "letters",
        "state": "raised",
        "kind": "full",
        "namespace": "shop",
        "queue": "mail",
        "value": 0.75,
        "limit": 0.7,
    }


def test_a_server_that_fails_is_asked_again_a_few_times(server: Hooked, caplog: pytest.LogCaptureFixture) -> None:
    server.answers = [503, 204]
    pauses: list[float] = []
    assert posted(server, pauses)
    server.answers = [503]
    assert not posted(server, pauses)
    assert pauses == [PAUSES[0], *PAUSES]
    assert "it answered 503" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("code", [302, 400, 404])
def test_what_would_be_said_again_is_not_asked_again_nor_followed(server: Hooked, code: int) -> None:
    server.answers = [code]
    pauses: list[float] = []
    assert not posted(server, pauses)
    assert (len(server.got), pauses) == (1, [])


def test_nobody_there_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert not Webhook("http://127.0.0.1:1/", "letters", lambda seconds: None).post(an_event())
    assert "the webhook at 127.0.0.1 was not told of full raised" in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/hook",
        "ftp://127.0.0.1/",
        "https://",
        "https://user:pw@example.org/",
        "file:///etc/passwd",
        "http://127.0.0.1.example.org/",
        "https://example.org/a b",
        "https://[::1",
        7,
    ],
)
def test_only_https_or_this_machine(url: Any) -> None:
    with pytest.raises(ConfigError, match="pressure_webhook"):
        Penstock("p", broker="memory://", pressure_webhook=url)


def test_its_url_is_not_shown() -> None:
    app = Penstock("p", broker="memory://", pressure_webhook="https://example.org/hook/s3cret")
    assert "s3cret" not in repr(app.conf)
