"""SQLite's and the system's errors, as ours: the only place that knows."""

from __future__ import annotations

import errno

import apsw

from penstock.errors import BrokerError, BrokerUnavailable, PenstockError, StoreError, StoreFull

REMEDIES: dict[type[apsw.Error], tuple[type[PenstockError], str]] = {
    apsw.FullError: (
        StoreFull,
        "no space left for {path}: free some; nothing was done, and nothing that was accepted is lost",
    ),
    apsw.BusyError: (
        BrokerUnavailable,
        "{path} is locked by a program that is not penstock (a backup, a shell?): {error}",
    ),
    apsw.LockedError: (BrokerUnavailable, "{path} is locked: {error}"),
    apsw.ReadOnlyError: (
        StoreError,
        "{path} cannot be written: check the rights of the file and of its folder ({error})",
    ),
    apsw.PermissionsError: (
        StoreError,
        "{path} cannot be used: check the rights of the file and of its folder ({error})",
    ),
    apsw.CantOpenError: (
        StoreError,
        "{path} cannot be opened: check that its folder exists and can be written ({error})",
    ),
    apsw.NotADBError: (StoreError, "{path} is not a database; choose another file"),
    apsw.CorruptError: (StoreError, "{path} is damaged ({error}): stop all workers, copy the file, restore a backup"),
    apsw.IOError: (BrokerError, "reading or writing {path} failed ({error}): check the disk and the system's log"),
    apsw.TooBigError: (StoreError, "{path}: a value is over SQLite's limit ({error})"),
    apsw.NoMemError: (BrokerError, "{path}: out of memory ({error})"),
}


def translate(error: BaseException, path: str) -> BaseException:
    """Our error for `error`; `error` itself when it is ours already, or a bug."""
    if isinstance(error, apsw.Error):
        if isinstance(error, apsw.IOError) and _is_full(error):
            error = apsw.FullError(str(error))
        for kind, (ours, text) in REMEDIES.items():
            if isinstance(error, kind):
                return ours(text.format(path=path, error=error))
        return StoreError(f"{path}: {type(error).__name__}: {error}")
    if isinstance(error, OSError) and not isinstance(error, PenstockError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFull(f"no space left for {path}: free some; nothing was done")
        return StoreError(f"{path}: {error}: check the rights of the file and of its folder")
    return error


def _is_full(error: apsw.Error) -> bool:
    """A full disk can show up as an I/O error of the shared-memory file."""
    return getattr(error, "extendedresult", 0) in (apsw.SQLITE_IOERR_SHMSIZE, apsw.SQLITE_IOERR_SHMOPEN)
