"""Results in Django's database, beside tasks elsewhere, keep the promises."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.clock import ManualClock
from penstock.engine import Engine
from penstock.testing.conformance import Check, run_check
from tests.conformance.cases import CASES
from tests.conformance.kits import PublishingBroker, SplitKit
from tests.transactions.callers import django_default


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    from django.core.management import call_command

    place = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.sqlite3")}
    with django_default({**place, "OPTIONS": {"init_command": "PRAGMA synchronous=OFF"}}) as connection:
        call_command("migrate", "penstock", verbosity=0)
        yield connection


@pytest.mark.parametrize("check", CASES)
def test_django_results(check: Check, database: Any) -> None:
    from penstock.contrib.django.result_store import DjangoResults

    def open_results(clock: ManualClock) -> Engine:
        return DjangoResults("default", clock, 86_400.0)

    run_check(check, functools.partial(SplitKit, PublishingBroker, blocking=True, open_results=open_results))
