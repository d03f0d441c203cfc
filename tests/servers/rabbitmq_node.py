"""One RabbitMQ."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import Server, free_port, program, running


@contextmanager
def rabbitmq_server(directory: Path) -> Iterator[Server]:
    """A one-node RabbitMQ with its own port mapper, cookie and data, run by the user who runs the tests.

    Before `SIGKILL`, let a new quorum queue settle: on 3.10.8, killed right after the declaration, it answered
    `declare` after the restart but hung on `get`, confirmed messages and all (3 of 3); ten seconds later all were kept.
    """
    # Not the one on PATH: Debian's is a wrapper that changes to the system's user and folders.
    script = program("rabbitmq-server", "/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin")
    port, dist_port, epmd_port = free_port(), free_port(), free_port()
    home = directory / "home"
    home.mkdir(exist_ok=True)
    config = directory / "rabbitmq.conf"
    config.write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n"
    )
    (directory / "enabled_plugins").write_text("[].\n")
    env = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"penstock-{port}@localhost",
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
        # Idle schedulers must not spin beside the tests.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none "
        "-kernel inet_dist_use_interface {127,0,0,1}",
        # The script then becomes the Erlang process, so that a signal to its id reaches the broker itself.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
    # In the foreground; Erlang would otherwise leave a daemon of it behind.
    epmd = subprocess.Popen([program("epmd")], env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        url = f"amqp://guest:guest@127.0.0.1:{port}/"
        # The answer is a method frame on channel 0: connection.start.
        hello, answer = b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"
        yield from running(Server(url, port, [script], directory / "rabbitmq.log", hello, answer, env))
    finally:
        epmd.kill()
        epmd.wait()
