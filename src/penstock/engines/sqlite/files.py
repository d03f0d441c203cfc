"""Where the database may live, and what is checked before it is opened."""

from __future__ import annotations

import os
import warnings
from urllib.parse import parse_qsl, unquote, urlsplit

from penstock.errors import ConfigError, StoreError

APPLICATION_ID = 0x50454E53
"""`PENS`, in the header of every Penstock database."""

REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "afs", "ceph", "lustre", "glusterfs", "gpfs", "ncpfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "vboxsf", "vmhgfs", "prl_fs"}
)
"""File systems on which locks or shared memory do not reach every user of the file."""


def parse_url(url: str) -> tuple[str, dict[str, str]]:
    """The absolute path and the options of `sqlite:///relative.db?durability=process` or `sqlite:////absolute.db`."""
    parts = urlsplit(url)
    if parts.netloc:
        raise ConfigError(f"{url!r}: use three slashes for a relative path (sqlite:///q.db), four for an absolute one")
    path = unquote(parts.path)[1:]
    if not path:
        raise ConfigError(f"{url!r} names no file: sqlite:///q.db")
    return os.path.abspath(path), dict(parse_qsl(parts.query))


def check_place(path: str) -> None:
    """Raise `StoreError` where a shared SQLite file is not safe, warn where it is soon lost."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise StoreError(f"the folder {folder} of {os.path.basename(path)} does not exist: create it")
    if "site-packages" in path.split(os.sep):
        raise StoreError(
            f"{path} is among installed packages, and lost with the next upgrade: set broker= or PENSTOCK_BROKER_URL"
        )
    kind = file_system(folder)
    if kind in REMOTE:
        raise StoreError(
            f"{path} is on a {kind} file system, where locks do not reach other machines and data can be lost: "
            f"use a local disk, or a server (penstock broker, Redis, PostgreSQL, RabbitMQ)"
        )
    if kind == "overlay":
        warnings.warn(
            f"{path} is in the container's own layer, and lost with the container: mount a volume", stacklevel=2
        )


def file_system(folder: str, mounts: str = "/proc/self/mounts") -> str | None:
    """The type of the file system that holds `folder`; `None` where the system does not tell."""
    try:
        with open(mounts) as table:
            lines = table.read().splitlines()
    except OSError:
        return None
    real = os.path.realpath(folder)
    best, kind = -1, None
    for line in lines:
        fields = line.split()
        point = fields[1].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), fields[2]
    return kind


def check_header(path: str) -> None:
    """Raise `StoreError` for a file that is there, and is not ours."""
    try:
        with open(path, "rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    if not header:
        return
    if not header.startswith(b"SQLite format 3\0"):
        raise StoreError(f"{path} is not a Penstock database (not even SQLite): choose another file")
    if not os.access(path, os.W_OK):
        raise StoreError(f"{path} is read-only: check its rights, and whether its disk is mounted read-only (dmesg)")
