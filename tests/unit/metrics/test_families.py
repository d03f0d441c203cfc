"""All metrics that there are, as a scraper reads them; the manual lists the same."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from penstock.gateway.answered import Answered
from penstock.metrics.counts import BOUNDS, ENDS, Counts
from penstock.metrics.families import MOST_QUEUES, broker_up, of_queues, of_worker
from penstock.metrics.text import render
from penstock.pressure.alarms import Alarm
from penstock.pressure.overview import Outlook
from penstock.pressure.samples import Times
from penstock.queue import QueueInfo
from tests import doc_pages
from tests.doc_pages import DOCS
from tests.exposition import Exposed

INFO = QueueInfo("mail", "shop", 100, 1_000, 70, 900, 60, 8, 2, 3, 7.5, 5_000, 4_930, True, shed=4, refused=12)
FULL = Alarm("full", "mail", "", 0.9, 0.7, 1.0)


def outlook(**changes: Any) -> Outlook:
    return Outlook(msgspec.structs.replace(INFO, **changes), 4.0, 1.5, Times(), [FULL])


def counted() -> Counts:
    counts = Counts()
    for end in ENDS:
        counts.ended("t", end, 2)
    counts.took([("mail", "t", 0.02, 3, 0.0, 0.0), ("mail", "t", 400.0, 1, 0.0, 0.0)])
    return counts


def exposed() -> Exposed:
    answered = Answered(lambda: 0)
    answered.add(503, "queue-full")
    own = [*of_worker(counted().read(), 4, 3), *answered.families()]
    return Exposed(render([*own, broker_up(True), *of_queues([outlook()])]))


def test_the_manual_lists_each_metric_and_its_labels() -> None:
    table = doc_pages.table(DOCS / "guides/operating.md", "Metrics")
    rows = {row[0].strip("`"): row[1] for row in table if row[0].startswith("`penstock_")}
    found = exposed()
    of_broker = {"penstock_broker_connections", "penstock_broker_blocked_publishes"}
    assert set(rows) - of_broker - {"penstock_broker_sign_ins_refused_total"} == found.names
    for family in found.families.values():
        assert family.documentation
        for sample in family.samples:
            if family.name.startswith("penstock_queue_"):
                assert set(sample.labels) == {"namespace", "queue"}
    assert re.findall(r"`(\w+)`", rows["penstock_worker_tasks_total"]) == ["task", "end"]
    text = (DOCS / "guides/operating.md").read_text("utf-8")
    assert f"`end`: {', '.join(ENDS)} |" in text


def test_numbers_are_where_they_belong() -> None:
    found, mail = exposed(), {"namespace": "shop", "queue": "mail"}
    assert found.get("penstock_queue_depth_tasks", **mail) == 70
    assert found.get("penstock_queue_refused_total", **mail) == 12
    assert found.get("penstock_queue_paused", **mail) == 1
    assert found.get("penstock_queue_predicted_wait_seconds", **mail) == 1.5
    assert found.get("penstock_alarms_active", **mail, kind="full") == 1
    assert found.get("penstock_alarms_active", **mail, kind="age") == 0, "what is not there cannot end"
    assert found.get("penstock_worker_tasks_total", task="t", end="expired") == 2
    assert found.get("penstock_worker_task_run_seconds_bucket", task="t", le="0.025") == 3
    assert found.get("penstock_worker_task_run_seconds_bucket", task="t", le=str(int(BOUNDS[-1]))) == 3
    assert found.get("penstock_worker_task_run_seconds_count", task="t") == 4


@pytest.mark.parametrize("field", ["depth", "bytes", "ready", "dead", "oldest_age", "enqueued", "refused"])
def test_what_is_not_known_is_missing_and_not_nought(field: str) -> None:
    found = Exposed(render(of_queues([outlook(**{field: None})])))
    assert len(found.samples) == len(Exposed(render(of_queues([outlook()]))).samples) - 1


def test_names_of_queues_have_a_bound() -> None:
    many = [outlook(name=f"q{number}", depth=number % 100, bytes=0) for number in range(MOST_QUEUES + 50)]
    depths = next(one for one in of_queues(many) if one.name == "penstock_queue_depth_tasks").samples
    assert len(depths) == MOST_QUEUES
    assert min(sample.value for sample in depths) > 0, "the fullest are shown"


def test_a_name_from_outside_cannot_break_the_format() -> None:
    nasty = 'a"}\n# TYPE x counter\\'
    found = Exposed(render(of_queues([outlook(name=nasty)])))
    assert found.get("penstock_queue_depth_tasks", namespace="shop", queue=nasty) == 70
