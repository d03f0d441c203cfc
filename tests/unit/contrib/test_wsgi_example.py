"""examples/wsgi_shop.py, by the letter of WSGI."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from penstock import Queue

EXAMPLE = Path(__file__).parents[3] / "examples/wsgi_shop.py"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "setup.cfg").touch()  # a project of its own, with a queue of its own
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_BROKER_URL", raising=False)
    import wsgi_shop

    yield wsgi_shop
    wsgi_shop.app.close()
    sys.modules.pop("wsgi_shop")


def ask(site: Any, path: str, body: bytes | None = None) -> tuple[str, dict[str, str], Any]:
    """Status, headers and body of a GET, or of a POST with a body."""
    environ: dict[str, Any] = {"PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": ""}
    if body is not None:
        environ |= {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    setup_testing_defaults(environ)
    begun: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
        begun[:] = [status, {name.lower(): value for name, value in headers}]
        return begun.append

    answer = validator(site)(environ, start)
    try:
        text = b"".join(answer)
    finally:
        answer.close()  # type: ignore[attr-defined]  # the validator's answers have one
    return begun[0], begun[1], json.loads(text)


def test_receipts_are_written(shop: Any) -> None:
    status, _, sent = ask(shop.site, "/orders", b"ada")
    assert status == "202 Accepted"
    place = f"/receipts/{sent['receipt']}"
    assert ask(shop.site, place)[2] == {"state": "PENDING", "receipt": None}
    for unknown in ("/receipts/nonsense", "/receipts/", "/receipts/" + "x" * 500, "/orders"):
        assert ask(shop.site, unknown)[0] == "404 Not Found", unknown
    command = [sys.executable, "-m", "penstock.cli", "-A", "wsgi_shop", "worker", "--burst", "-c", "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert ask(shop.site, place)[2] == {"state": "SUCCESS", "receipt": "Thank you, ada!"}


def test_a_full_queue_is_told(shop: Any) -> None:
    shop.app.configure(task_queues=[Queue("default", max_length=1)])
    assert ask(shop.site, "/orders", b"ada")[0] == "202 Accepted"
    status, headers, _ = ask(shop.site, "/orders", b"bob")
    assert status.startswith("503 ") and int(headers["retry-after"]) >= 1
