"""Private real servers for tests: own ports, own folder, no system service touched, ended by process id.

    with redis_server(tmp_path) as server:
        connect(server.url)
        server.stop(signal.SIGKILL)     # what a crash leaves behind ...
        server.start()                  # ... is found again: same folder, same port

A server needs the folder to itself. Without the program, `NotInstalled` is raised; who calls decides what that means.
"""

from tests.servers.broker_node import broker_server
from tests.servers.postgres_node import postgres_server
from tests.servers.process import NotInstalled, Server
from tests.servers.rabbitmq_node import rabbitmq_server
from tests.servers.redis_node import redis_server

__all__ = ["NotInstalled", "Server", "broker_server", "postgres_server", "rabbitmq_server", "redis_server"]
