"""Who uses the database: many embedded engines, or one broker alone. A lock on a file says it, and dies with its
process."""

from __future__ import annotations

import fcntl
import os

from penstock.errors import StoreError


class Owner:
    """Held while the database is open. Raises `StoreError` when somebody else's use forbids ours."""

    def __init__(self, folder: str, database: str, *, sole: bool) -> None:
        path = os.path.join(folder, "owner")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, (fcntl.LOCK_EX if sole else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            told = os.pread(self._file, 200, 0).decode("utf-8", "replace").strip()
            os.close(self._file)
            raise StoreError(_refusal(database, told, sole=sole)) from None
        if sole:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._file)


def _refusal(database: str, told: str, *, sole: bool) -> str:
    if not sole:
        return (
            f"{database} belongs to a running broker ({told or 'of another container'}): connect to that instead, "
            "with broker='penstock://user:password@host:7419/', or stop it"
        )
    return (
        f"{database} is in use by another broker ({told or 'of another container'}), or opened by an app with "
        "broker='sqlite:///…': one owner at a time; stop the other, or let apps connect by penstock://"
    )
