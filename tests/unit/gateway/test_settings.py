"""What may be set of a gateway: bounds for everything, and changes while it runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.gateway import GatewaySettings
from penstock.gateway.serving import Place
from penstock.gateway.settings_file import SettingsFile
from tests.unit.gateway.faces import Face

NO_NUMBERS: tuple[object, ...] = (
    -1,
    -0.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    1e300,
    10**30,
    "5",
    None,
    True,
    [],
)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", [*GatewaySettings.__struct_fields__])
def test_what_is_no_bound_is_refused_by_name(name: str, value: object) -> None:
    if name == "rate" and value is None:
        return
    with pytest.raises(ConfigError, match=rf"gateway: {name} must be .*, not "):
        GatewaySettings(**{name: value})


@pytest.mark.parametrize("name", ["max_body", "max_calls", "open_requests", "client_requests", "burst", "rate"])
def test_nothing_at_all_is_no_bound_either(name: str) -> None:
    given: Any = {name: 0}
    with pytest.raises(ConfigError, match=name):
        GatewaySettings(**given)


def test_the_wait_fits_into_the_longest() -> None:
    with pytest.raises(ConfigError, match="wait must be between 0 and 45 seconds, not 50"):
        GatewaySettings(wait=50.0)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"grace": -5.0}, "grace"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_connections": 10**9}, "max_connections"),
        ({"proxies": ("proxy.example",)}, "--proxy"),
    ],
)
def test_a_place_has_bounds(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Place("127.0.0.1", 0, **given)


def test_a_change_counts_from_the_next_request_on(make_face: Callable[..., Face]) -> None:
    face = make_face()
    assert face.post("/v1/tasks/internal.drop").status == 202
    gateway = face.asgi.gateway if face.kind == "asgi" else face.wsgi.gateway  # type: ignore[attr-defined]  # both have
    gateway.change(GatewaySettings(expose=("tasks.*",), rate=0.0001, burst=2, max_body=20))
    assert face.post("/v1/tasks/internal.drop").status == 404
    assert face.post("/v1/tasks/tasks.add", {"args": [1] * 20}).status == 413
    assert face.get("/v1/info").status == 429
    gateway.change(GatewaySettings())
    assert face.post("/v1/tasks/tasks.add", {"args": [1]}).status == 202


@pytest.fixture
def file(tmp_path: Path) -> SettingsFile:
    (tmp_path / "gateway.toml").write_text('rate = 5\nexpose = ["tasks.*"]\n')
    return SettingsFile(tmp_path / "gateway.toml", GatewaySettings(max_body=77))


def write(file: SettingsFile, text: str) -> None:
    file.path.write_text(text)
    now = file.path.stat().st_mtime_ns
    os.utime(file.path, ns=(now + 1_000_000, now + 1_000_000))


def test_a_file_of_settings_wins_and_is_read_again(file: SettingsFile, caplog: pytest.LogCaptureFixture) -> None:
    found = file.read()
    assert (found.rate, found.expose, found.max_body) == (5.0, ("tasks.*",), 77)
    assert file.changed() is None
    write(file, "rate = 6")
    changed = file.changed()
    assert changed is not None
    assert (changed.rate, changed.expose) == (6.0, ("*",))
    with caplog.at_level(logging.ERROR):
        write(file, "rate = -6")
        assert file.changed() is None
        assert "rate must be between" in caplog.text and "stay as they were" in caplog.text
        assert file.changed() is None
    file.path.unlink()
    assert file.changed() is None
    assert "cannot be read: No such file" in caplog.text


@pytest.mark.parametrize(
    ("text", "why"),
    [("rat = 5", "did you mean 'rate'"), ("rate =", "no TOML"), ('rate = "x"', "rate"), ("max_body = 1.5", "max_body")],
)
def test_a_file_that_is_wrong_is_refused(file: SettingsFile, text: str, why: str) -> None:
    write(file, text)
    with pytest.raises(ConfigError, match=why):
        file.read()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        SettingsFile(tmp_path / "none.toml", GatewaySettings()).read()
