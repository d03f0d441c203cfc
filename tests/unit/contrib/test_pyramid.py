"""Tasks with a request of Pyramid's. In processes of their own: to import it warns, which is an error in tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples/pyramid_shop.py"

ORDER = """
import pyramid_shop
from webob import Request

def ask(path, **given):
    return Request.blank(path, **given).get_response(pyramid_shop.site)

sent = ask("/orders", POST={"customer": "ada"})
print(sent.status_code, sent.json["receipt"], ask("/receipts/" + sent.json["receipt"]).json["state"])
print(ask("/receipts/nonsense").status_code, pyramid_shop.app.conf.task_time_limit)
pyramid_shop.main()  # again, while the app is at work
"""
LOOK = """
import sys, pyramid_shop
from webob import Request
print(Request.blank("/receipts/" + sys.argv[1]).get_response(pyramid_shop.site).json)
"""
REHEARSE = """
from pyramid.config import Configurator
from pyramid.threadlocal import get_current_request
from penstock import ConfigError
from penstock.contrib.pyramid import PyramidPenstock
from penstock.contrib.rehearsal import rehearse

app = PyramidPenstock("shop")
seen = []

@app.task(name="look")
def look(fail: bool) -> None:
    request = get_current_request()
    assert request.penstock is app
    request.add_finished_callback(lambda request: seen.append(fail))
    if fail:
        raise KeyError

with rehearse(app) as rehearsal:
    result = look.delay(False)
    rehearsal.run_all()
    try:
        result.get()
    except ConfigError as error:
        print("includeme" in str(error))

with Configurator() as config:
    config.include(app.includeme)
with rehearse(app) as rehearsal:
    look.delay(False)
    look.delay(True)
    print([str(ran.state) for ran in rehearsal.run_all()], seen, get_current_request())
try:
    Configurator(settings={"penstock.leese": 5}).include(app.includeme)
except ConfigError as error:
    print("lease" in str(error))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "setup.cfg").touch()  # a project of its own, with a queue of its own
    return tmp_path


def python(folder: Path, *words: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK")}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_example_writes_receipts(folder: Path) -> None:
    first, second = python(folder, "-c", ORDER)
    code, sent, state = first.split()
    assert (code, state, second) == ("202", "PENDING", "404 60.0")
    python(folder, "-m", "penstock.cli", "-A", "pyramid_shop", "worker", "--burst", "-c", "1")
    receipt = {"state": "SUCCESS", "receipt": "The Shop thanks ada; orders: /orders"}
    assert python(folder, "-c", LOOK, sent) == [str(receipt)]


def test_each_run_has_a_request_of_its_own(folder: Path) -> None:
    assert python(folder, "-c", REHEARSE) == ["True", "['SUCCESS', 'FAILURE'] [False, True] None", "True"]
