"""An app that signs and compresses, and a worker for it with a key of its own: `python -m tests.acceptance.vault …`.

Who sends has an Ed25519 key, the worker an RSA one with a certificate; each accepts the other's, from files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from penstock import Penstock, Task
from tests import keys

RATIO = 100


class Parcel:
    """What only pickle carries."""

    def __init__(self, text: str) -> None:
        self.text = text


class Place(NamedTuple):
    """Where the vault is. `results` and `queue` as the app takes them."""

    folder: Path
    broker: str
    results: str | None = None
    queue: str = "default"

    def prepare(self) -> None:
        """Make the keys of both sides."""
        sender, worker = keys.private(), keys.private("rsa")
        for name, text in (
            ("sender.pem", keys.pem(sender)),
            ("sender.pub", keys.public_pem(sender)),
            ("worker.pem", keys.pem(worker, b"secret")),
            ("worker.crt", keys.certificate(worker)),
        ):
            (self.folder / name).write_text(text)

    def security(self, side: str) -> dict[str, Any]:
        """The keys of one side, as settings."""
        if side == "sender":
            return {
                "security_key": str(self.folder / "sender.pem"),
                "security_cert_store": str(self.folder / "*.crt"),
            }
        if side == "worker":
            return {
                "security_key": str(self.folder / "worker.pem"),
                "security_key_password": "secret",
                "security_certificate": str(self.folder / "worker.crt"),
                "security_cert_store": [str(self.folder / "*.pub")],
            }
        return {"security_key": keys.pem(keys.private())}


class Vault:
    def __init__(self, place: Place, side: str, **settings: Any) -> None:
        given: Any = {
            "accept_content": ["json", "msgpack", "yaml", "pickle"],
            "task_default_queue": place.queue,
            "result_compression": "zstd",
            "compression_min_bytes": 100,
            "inflate_max_ratio": RATIO,
            **place.security(side),
            **settings,
        }
        self.app = app = Penstock("vault", broker=place.broker, result_backend=place.results, **given)
        self.double: Task[[str], str] = app.task(name="double")(self._double)
        self.open: Task[[Any], str] = app.task(name="open")(self._open)
        self.stubborn: Task[..., int] = app.task(name="stubborn", bind=True)(self._stubborn)
        self.hasty: Task[..., str] = app.task(name="hasty", bind=True, acks_late=False)(self._hasty)
        self.moody: Task[[str], str] = app.task(name="moody")(self._moody)
        self.glue: Task[[list[str]], str] = app.task(name="glue", serializer="msgpack")(self._glue)
        self.parent: Task[[str], str] = app.task(name="parent")(self._parent)

    def _double(self, text: str) -> str:
        return text + text

    def _open(self, parcel: Any) -> str:
        return str(parcel.text)

    def _stubborn(self, task: Any, number: int) -> int:
        """Retried as it is, then with other arguments."""
        if task.request.retries == 0:
            raise task.retry(countdown=0.05)
        if task.request.retries == 1:
            raise task.retry(args=(number + 1,), countdown=0.05)
        return number

    def _hasty(self, task: Any, text: str) -> str:
        """Retried, though it was acknowledged."""
        if task.request.retries == 0:
            raise task.retry(countdown=0.05)
        return text + text

    def _moody(self, path: str) -> str:
        """Fails until that file is there."""
        return Path(path).read_text()

    def _glue(self, texts: list[str]) -> str:
        return "-".join(texts)

    def _parent(self, text: str) -> str:
        """Calls another task; signed by the worker."""
        return self.double.delay(text).id


def main(argv: Sequence[str]) -> int:
    from penstock.worker import Worker, WorkerOptions

    parser = argparse.ArgumentParser()
    parser.add_argument("--results")
    parser.add_argument("--queue", default="default")
    parser.add_argument("folder", type=Path)
    parser.add_argument("broker")
    given = parser.parse_args(argv)
    place = Place(given.folder, given.broker, given.results, given.queue)
    # What it publishes itself is run by this worker, and read by the sender: each side accepts the other.
    vault = Vault(place, "worker")
    return Worker(vault.app, WorkerOptions(concurrency=1, loglevel="CRITICAL")).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
