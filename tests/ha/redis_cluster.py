"""A Redis with two replicas, and a Sentinel on each machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

import redis

from tests.ha.cluster import Cluster, Fault, until
from tests.ha.wires import Wires
from tests.servers import Server
from tests.servers.process import program

PORT, SENTINEL_PORT = 6379, 26379
NAME = "mill"
DOWN_AFTER = 3.0
"""Seconds of silence after which a Sentinel takes the master for dead."""


class RedisCluster(Cluster):
    kind = "redis"

    def __init__(self, wires: Wires, folder: Path) -> None:
        super().__init__(wires)
        hosts = ",".join(f"{host}:{SENTINEL_PORT}" for host in wires.hosts)
        self.url = f"sentinel://{hosts}/{NAME}?wait=1"
        self._folder = folder

    def start(self) -> None:
        for number, host in enumerate(self.wires.hosts):
            folder = self._folder / str(number)
            folder.mkdir()
            replica = () if number == 0 else ("--replicaof", self.wires.hosts[0], str(PORT))
            self.nodes.append([self._server(number, host, folder, replica), self._sentinel(number, host, folder)])
            self.nodes[number][0].start()
        until(lambda: self._replicas(0) == 2, "two replicas are in sync")
        for _, sentinel in self.nodes:
            sentinel.start()
        until(lambda: all(map(self._is_informed, range(3))), "the Sentinels know each other")

    def _server(self, number: int, host: str, folder: Path, replica: tuple[str, ...]) -> Server:
        argv = [*self.wires.inside(number), program("redis-server"), "--port", str(PORT), "--bind", host, "127.0.0.1"]
        argv += ["--protected-mode", "no", "--dir", str(folder), "--save", "", "--repl-diskless-sync-delay", "0"]
        # A master without replicas takes no writes: what it took would be lost when it comes back.
        argv += ["--appendonly", "yes", "--appendfsync", "always", "--min-replicas-to-write", "1"]
        argv += ["--min-replicas-max-lag", "3", "--repl-ping-replica-period", "1", "--repl-timeout", "6", *replica]
        return Server("", PORT, argv, folder / "redis.log", b"PING\r\n", b"+PONG", host=host)

    def _sentinel(self, number: int, host: str, folder: Path) -> Server:
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {SENTINEL_PORT}\nbind {host} 127.0.0.1\nprotected-mode no\ndir {folder}\n"
            f"sentinel monitor {NAME} {self.wires.hosts[0]} {PORT} 2\n"
            f"sentinel down-after-milliseconds {NAME} {int(DOWN_AFTER * 1000)}\n"
            # A master that fails again within twice this time must wait.
            f"sentinel failover-timeout {NAME} 3000\nsentinel parallel-syncs {NAME} 2\n"
        )
        argv = [*self.wires.inside(number), program("redis-server"), str(config), "--sentinel"]
        return Server("", SENTINEL_PORT, argv, folder / "sentinel.log", b"PING\r\n", b"+PONG", host=host)

    def strike(self, number: int, fault: Fault) -> None:
        if fault is Fault.FREEZE:
            # Not its Sentinel, too: one that froze trusts nothing for 30 s afterwards (TILT), and the next fault would
            # find no quorum.
            self.nodes[number][0].freeze()
        else:
            super().strike(number, fault)

    def leader(self, queue: str) -> int:
        for number in range(3):
            with contextlib.suppress(redis.RedisError), self._client(number) as client:
                role = client.execute_command("ROLE")
                if role[0] == b"master" and len(role[2]) >= 1:
                    return number
        raise AssertionError("there is no master")

    def rejoin(self, number: int, fault: Fault) -> None:
        if fault is Fault.KILL:
            for server in self.nodes[number]:
                server.start()  # the Sentinels make it a replica
        until(lambda: any(self._replicas(other) == 2 for other in range(3)), "two replicas are in sync")
        until(lambda: all(map(self._is_informed, range(3))), "the Sentinels agree")

    def _replicas(self, number: int) -> int:
        """How many replicas of this master are online; 0 when it is none."""
        try:
            with self._client(number) as client:
                info = client.info("replication")
        except redis.RedisError:
            return 0
        if info["role"] != "master":
            return 0
        return sum(info.get(f"slave{n}", {}).get("state") == "online" for n in range(3))

    def _is_informed(self, number: int) -> bool:
        """This Sentinel knows the others, and takes nobody for dead."""
        try:
            with redis.Redis(self.wires.hosts[number], SENTINEL_PORT, socket_timeout=1) as client:
                client.execute_command("SENTINEL", "CKQUORUM", NAME)
                facts = client.sentinel_master(NAME)
        except redis.RedisError:
            return False
        return (
            bool(facts["flags"] in ("master", {"master"}))
            and facts["num-other-sentinels"] == 2
            and facts["num-slaves"] == 2
        )

    def _client(self, number: int) -> redis.Redis:
        return redis.Redis(self.wires.hosts[number], PORT, socket_timeout=1, socket_connect_timeout=1)
