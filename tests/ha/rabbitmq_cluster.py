"""Three RabbitMQ nodes; results are on a Redis beside them, which never fails."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.ha.cluster import HEALING, Cluster, Fault, until
from tests.ha.wires import Wires
from tests.servers import Server, redis_server
from tests.servers.process import program

PORT = 5672
BIN = "/usr/lib/rabbitmq/bin"
BOOTED = "case rabbit:is_booted() of true -> length(rabbit_nodes:all_running()); false -> 0 end."
"""How many nodes run, for one that does itself; it counts long before it serves."""
ALONE = 25.0
"""Seconds that a node has to come back by itself."""


class RabbitCluster(Cluster):
    kind = "rabbitmq"

    def __init__(self, wires: Wires, folder: Path) -> None:
        super().__init__(wires)
        # A node that froze says nothing; heartbeats tell.
        self.url = (
            f"amqp://guest:guest@{','.join(f'{host}:{PORT}' for host in wires.hosts)}/?heartbeat=2&connect_timeout=2"
        )
        self._folder = folder
        self._names = [f"rabbit@{host}" for host in wires.hosts]
        self._epmds: list[subprocess.Popen[bytes]] = []
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        (self._folder / "results").mkdir()
        self.results = self._stack.enter_context(redis_server(self._folder / "results")).url
        for number, host in enumerate(self.wires.hosts):
            folder = self._folder / str(number)
            self._prepare(folder)
            env = self._environment(number, folder)
            self._epmds.append(
                subprocess.Popen([*self.wires.inside(number), program("epmd")], env=env, stdin=subprocess.DEVNULL)
            )
            argv = [*self.wires.inside(number), program("rabbitmq-server", BIN)]
            hello, answer = b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"
            log = folder / "rabbitmq.log"
            self.nodes.append([Server("", PORT, argv, log, hello, answer, env, host=host)])
        self.nodes[0][0].start()  # the others find it, and join it
        for (server,) in self.nodes[1:]:
            server.launch()
        for (server,) in self.nodes[1:]:
            server.wait_until_up()
        until(lambda: self._running(0) == 3, "three nodes are one cluster", pause=1.0)

    def _prepare(self, folder: Path) -> None:
        (folder / "home").mkdir(parents=True)
        cookie = folder / "home" / ".erlang.cookie"
        cookie.write_text("penstock")
        cookie.chmod(0o400)
        (folder / "enabled_plugins").write_text("[].\n")
        members = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {name}\n"
            for number, name in enumerate(self._names, start=1)
        )
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 0.0.0.0:{PORT}\nloopback_users = none\nlog.console = true\n"
            "log.console.level = warning\nlog.file = false\ncluster_partition_handling = pause_minority\n"
            "cluster_formation.peer_discovery_backend = classic_config\n" + members
        )

    def _environment(self, number: int, folder: Path) -> Mapping[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_NODENAME": self._names[number],
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "rabbitmq.pid"),
            # The node that is cut off must notice by itself, sooner than in the usual minute.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none "
            "-kernel net_ticktime 4",
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def leader(self, queue: str) -> int:
        """Of the queue that most tasks are in: each has its own leader."""
        rows = [line.split("\t") for line in self._ask("list_queues", "--silent", "name", "messages", "leader")]
        known = [row for row in rows if queue in row[0] and len(row) == 3 and row[2] in self._names]
        plain = max(known, key=lambda row: (int(row[1]), -len(row[0])))
        return self._names.index(plain[2])

    def rejoin(self, number: int, fault: Fault) -> None:
        (server,) = self.nodes[number]
        if fault is Fault.KILL:
            server.start()
        try:
            self._wait_for_all(ALONE)
        except AssertionError:
            # A node that was away for longer than a tick pauses itself, and does not always find back (3.10): it is
            # started anew, as an operator would.
            server.stop(signal.SIGKILL)
            server.start()
            self._wait_for_all(HEALING)

    def _wait_for_all(self, seconds: float) -> None:
        def is_whole() -> bool:
            return all(self._running(node) == 3 for node in range(3)) and self._has_all_members()

        until(is_whole, "three nodes are one cluster, and all queues have three members", seconds, pause=1.0)

    def _has_all_members(self) -> bool:
        """Else the next fault may take a queue's majority, which no client survives."""
        try:
            rows = [line.split("\t") for line in self._ask("list_queues", "--silent", "name", "online", number=0)]
        except subprocess.SubprocessError:
            return False
        return all(row[-1].count("@") == 3 for row in rows if row[-1].startswith("["))

    def _running(self, number: int) -> int:
        """How many nodes are running, as this one sees it."""
        try:
            lines = self._ask("eval", BOOTED, number=number)
            return int(lines[0])
        except (subprocess.SubprocessError, ValueError, IndexError):
            return 0

    def _ask(self, *words: str, number: int | None = None) -> list[str]:
        """What a node answers, or the first that does."""
        for node in range(3) if number is None else [number]:
            folder = self._folder / str(node)
            command = [*self.wires.inside(node), f"{BIN}/rabbitmqctl", "--longnames", "-n", self._names[node], *words]
            try:
                return subprocess.run(
                    command,
                    env=dict(self._environment(node, folder)),
                    capture_output=True,
                    text=True,
                    timeout=10,
                    check=True,
                ).stdout.splitlines()
            except subprocess.SubprocessError:
                if number is not None:
                    raise
        raise AssertionError("no node answers")

    def close(self) -> None:
        super().close()
        for epmd in self._epmds:
            epmd.send_signal(signal.SIGKILL)
            epmd.wait()
        self._stack.close()
