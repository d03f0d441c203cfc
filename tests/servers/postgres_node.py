"""One PostgreSQL, run by an unprivileged user: its programs refuse root."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import NotInstalled, Server, free_port, program

USER, PASSWORD, DATABASE = "penstock", "secret", "penstock"
ADMIN = "postgres"
"""The superuser, of the same password."""
# Debian's, Homebrew's, and the RPMs' folders; none of them is on PATH.
FOLDERS = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/pgsql-*/bin")


@dataclass
class PostgresServer(Server):
    """The same, with the superuser's address."""

    admin_url: str = ""


@contextmanager
def postgres_server(directory: Path, *options: str) -> Iterator[PostgresServer]:
    """A PostgreSQL that asks for passwords (scram); further `options` as on its command line: `"-c", "fsync=off"`."""
    with postgres_folder() as folder:
        data = folder / "data"
        init_database(data)
        server = postgres_process(data, directory / "postgres.log", free_port(), *options)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)
            forget_memory(data)


def postgres_process(
    data: Path, log: Path, port: int, *options: str, host: str = "127.0.0.1", prefix: Sequence[str] = ()
) -> PostgresServer:
    """The process for a data folder, not started. `prefix` is a command to run it under."""
    argv = [*prefix, *as_user(), postgres_program("postgres"), "-D", str(data), "-p", str(port)]
    argv += ["-c", f"listen_addresses={host}", "-c", f"unix_socket_directories={data.parent}", *options]
    names = f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
    # A whole start-up message: while it recovers, the server answers it with an error, not with the question for the
    # password.
    hello = (len(names) + 8).to_bytes(4) + (3 << 16).to_bytes(4) + names
    where = f"{PASSWORD}@{host}:{port}/{DATABASE}"
    return PostgresServer(
        f"postgresql://{USER}:{where}",
        port,
        argv,
        log,
        hello,
        b"R",
        folder=data.parent,
        host=host,
        admin_url=f"postgresql://{ADMIN}:{where}",
    )


@contextmanager
def postgres_folder() -> Iterator[Path]:
    """A folder of the unprivileged user, which pytest's cannot be; its name is short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))
    try:
        if os.geteuid() == 0:
            user = unprivileged()
            os.chown(folder, user.pw_uid, user.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder)


def init_database(data: Path) -> None:
    """Make the data folder with the superuser, the user and the user's database."""
    password = data.parent / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    run_postgres("initdb", "-D", str(data), "-U", ADMIN, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync",
                 "--pwfile", str(password), folder=data.parent)  # fmt: skip
    run_postgres(
        "postgres", "--single", "-D", str(data), "postgres",
        folder=data.parent,
        stdin=f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{PASSWORD}'\nCREATE DATABASE {DATABASE} OWNER {USER}\n",
    )  # fmt: skip


def run_postgres(name: str, *arguments: str, folder: Path, stdin: str = "", prefix: Sequence[str] = ()) -> str:
    """Run one of its programs as the unprivileged user, and return what it printed."""
    done = subprocess.run(
        [*prefix, *as_user(), postgres_program(name), *arguments],
        cwd=folder,
        input=stdin,
        text=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "PGPASSWORD": PASSWORD},
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def postgres_program(name: str) -> str:
    folders = [str(found) for pattern in FOLDERS for found in Path("/").glob(pattern.lstrip("/"))]
    # The newest first: 15 sorts before 9.6, which no engine of ours supports anyway.
    return program(name, *sorted(folders, key=lambda folder: (len(folder), folder), reverse=True))


def as_user() -> list[str]:
    """The words before a command that make root the unprivileged user."""
    if os.geteuid():
        return []
    user = unprivileged()
    return [program("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NotInstalled("PostgreSQL needs an unprivileged user: there is neither postgres nor nobody")


def forget_memory(data: Path) -> None:
    """Free the shared memory segment by which a killed server would know its children."""
    try:
        key_and_id = (data / "postmaster.pid").read_text().splitlines()[6].split()
    except (OSError, IndexError):
        return
    subprocess.run(["ipcrm", "-m", key_and_id[1]], stderr=subprocess.DEVNULL)
