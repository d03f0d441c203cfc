"""PostgreSQL with two standbys, one of which must have a commit before it is acknowledged, and what replaces a leader.

`Warden` plays the part of Patroni or pg_auto_failover, which are not in Debian's packages in a form that these tests
could start: it notices a silent leader by time-out, fences it (ends its processes: what a watchdog or the loss of the
leader's lease does there), and promotes the standby that has received the most. It is no replacement for them: there is
one of it, so that its own failure is not part of the test.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from tests.ha.cluster import Cluster, Fault, until
from tests.ha.wires import NET, Wires
from tests.servers.postgres_node import (
    ADMIN,
    DATABASE,
    PASSWORD,
    USER,
    forget_memory,
    init_database,
    postgres_folder,
    postgres_process,
    postgres_program,
    run_postgres,
)

PORT = 5432
LOOK, SILENCE = 0.5, 3.0
"""Seconds between two looks at the leader, and of silence after which it is replaced."""
SETTINGS = {
    "wal_keep_size": "'1GB'",
    "hot_standby_feedback": "on",
    "synchronous_standby_names": "'ANY 1 (n0,n1,n2)'",
    "wal_receiver_timeout": "'5s'",
    "wal_sender_timeout": "'5s'",
    "wal_retrieve_retry_interval": "'200ms'",
    "max_connections": "100",
}


class PostgresCluster(Cluster):
    kind = "postgres"

    def __init__(self, wires: Wires, folder: Path) -> None:
        super().__init__(wires)
        hosts = ",".join(f"{host}:{PORT}" for host in wires.hosts)
        self.url = f"postgresql://{USER}:{PASSWORD}@{hosts}/{DATABASE}"
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._homes: list[Path] = []
        self._first = 0
        self.warden = Warden(self)

    def start(self) -> None:
        self._homes = [self._stack.enter_context(postgres_folder()) for _ in self.wires.hosts]
        data = self.data(0)
        init_database(data)
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in SETTINGS.items())
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NET}.0/24 scram-sha-256\nhost replication all {NET}.0/24 scram-sha-256\n")
        for number, host in enumerate(self.wires.hosts):
            prefix = self.wires.inside(number)
            log = self._folder / f"{number}.log"
            self.nodes.append([postgres_process(self.data(number), log, PORT, host=host, prefix=prefix)])
        self.nodes[0][0].start()
        for number in (1, 2):
            self.copy(number, leader=0)
            self.nodes[number][0].start()
        until(lambda: self.followers(0) == 2, "two standbys follow")
        self.warden.start()

    def data(self, number: int) -> Path:
        return self._homes[number] / "data"

    def copy(self, number: int, leader: int) -> None:
        """Make this machine's data anew from the leader's, as a standby."""
        data = self.data(number)
        forget_memory(data)
        shutil.rmtree(data, ignore_errors=True)
        run_postgres(
            "pg_basebackup", "-d", self._conninfo(number, leader), "-D", str(data), "-R", "--checkpoint=fast",
            "--no-sync", folder=self._homes[number], prefix=self.wires.inside(number),
        )  # fmt: skip
        self.follow(number, leader, at_rest=True)

    def follow(self, number: int, leader: int, *, at_rest: bool = False) -> None:
        setting = f"primary_conninfo = '{self._conninfo(number, leader)}'\n"
        if at_rest:
            with (self.data(number) / "postgresql.auto.conf").open("a") as conf:
                conf.write(setting)
        else:
            self.ask(number, f"ALTER SYSTEM SET {setting}")
            self.ask(number, "SELECT pg_reload_conf()")

    def _conninfo(self, number: int, leader: int) -> str:
        host = self.wires.hosts[leader]
        return f"host={host} port={PORT} user={ADMIN} password={PASSWORD} application_name=n{number} connect_timeout=2"

    def leader(self, queue: str) -> int:
        for number in range(3):
            if self.is_leader(number):
                return number
        raise AssertionError("there is no leader")

    def is_leader(self, number: int) -> bool:
        return self._answer(number, "SELECT pg_is_in_recovery()") == "f"

    def followers(self, leader: int) -> int:
        """Standbys that stream from it."""
        return int(self._answer(leader, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") or 0)

    def received(self, number: int) -> int:
        """How far a standby's log goes, in bytes; -1 when it does not answer."""
        query = "SELECT pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')::bigint"
        return int(self._answer(number, query) or -1)

    def _answer(self, number: int, query: str) -> str | None:
        try:
            return self.ask(number, query)
        except (RuntimeError, subprocess.SubprocessError):
            return None

    def ask(self, number: int, query: str) -> str:
        """One value, within two seconds."""
        url = f"postgresql://{ADMIN}:{PASSWORD}@{self.wires.hosts[number]}:{PORT}/{DATABASE}?connect_timeout=2"
        prefix = ["timeout", "2"]
        words = ("psql", url, "-X", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", query)
        return run_postgres(*words, folder=self._homes[number], prefix=prefix).strip()

    def is_up(self, number: int) -> bool:
        return self._sees(number, [])

    def _sees(self, number: int, prefix: list[str]) -> bool:
        command = [postgres_program("pg_isready"), "-q", "-t", "1", "-h", self.wires.hosts[number], "-p", str(PORT)]
        return subprocess.run([*prefix, *command]).returncode == 0

    def heal(self, number: int, fault: Fault) -> None:
        until(lambda: self.warden.leader != number, "another leads")
        super().heal(number, fault)

    def rejoin(self, number: int, fault: Fault) -> None:
        """Its log may have what was never acknowledged, so that it starts from a copy of the leader."""
        there = self.wires.inside(number)
        until(lambda: self._sees(self.warden.leader, there), "the leader can be reached from there")
        self.copy(number, self.warden.leader)
        self.nodes[number][0].start()
        until(lambda: self.followers(self.warden.leader) == 2, "two standbys follow")

    def close(self) -> None:
        self.warden.close()
        super().close()
        for number in range(len(self._homes)):
            forget_memory(self.data(number))
        self._stack.close()


class Warden:
    """Looks at the leader, and replaces it."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self.leader = 0
        self.changes: list[float] = []
        """How long each replacement took from the first missed answer, in seconds."""
        self._cluster = cluster
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warden")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        answered = time.monotonic()
        while not self._stopped.wait(LOOK):
            if self._cluster.is_up(self.leader):
                answered = time.monotonic()
            elif time.monotonic() - answered >= SILENCE:
                self._replace()
                self.changes.append(time.monotonic() - answered)
                answered = time.monotonic()

    def _replace(self) -> None:
        cluster, old = self._cluster, self.leader
        for server in cluster.nodes[old]:
            server.stop(signal.SIGKILL)
        others = [number for number in range(3) if number != old]
        best = max(others, key=cluster.received)
        cluster.ask(best, "SELECT pg_promote(wait => true, wait_seconds => 1)")
        for other in others:
            if other != best:
                cluster.follow(other, best)
        self.leader = best
