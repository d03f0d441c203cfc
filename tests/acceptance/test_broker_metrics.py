"""A broker tells Prometheus of its queues, what it has refused included; and its clients see the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock import Penstock, Queue, QueueFull
from penstock.cli.main import cli
from tests.acceptance.test_signals import scrape
from tests.servers import broker_server
from tests.servers.process import free_port


def test_what_is_refused_is_counted(tmp_path: Path) -> None:
    port = free_port()
    with broker_server(tmp_path, "--metrics-port", str(port)) as broker:
        app = Penstock("p", broker=broker.url, task_queues=[Queue("mail", 5)])
        task = app.task(name="t", queue="mail")(lambda: None)
        task.delay_many([()] * 4)
        for _ in range(3):
            with pytest.raises(QueueFull):
                task.delay_many([()] * 2)
        found = scrape(port)
        mail = {"broker_namespace": "/", "namespace": "", "queue": "mail"}
        assert found.get("penstock_queue_refused_total", **mail) == 6
        assert found.get("penstock_queue_depth_tasks", **mail) == 4
        assert (found.get("penstock_broker_connections") or 0) >= 1
        told = CliRunner().invoke(cli, ["-b", broker.url, "pressure", "--json", "--interval", "0.2"])
        [queue] = [one for one in json.loads(told.output)["queues"] if one["name"] == "mail"]
        assert (queue["refused"], queue["depth"]) == (6, 4)
        [refused] = json.loads(told.output)["refused"]
        assert (refused["queue"], refused["task"], refused["calls"]) == ("mail", "t", 6)
        assert refused["who"].endswith("@127.0.0.1")
        app.close()
