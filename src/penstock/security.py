"""From the settings to the pipeline of arguments and results: what is read, what is compressed, who signs.

A key or certificate is PEM, or the path of a PEM file, relative to the project's root. `security_cert_store` lists
those whose signatures are accepted: certificates and bare public keys, with `*` for many files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.codec import Bounds, Pipeline, Reader, Trust, serializer
from penstock.codec.values import PICKLE
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.codec.signing import Keyring
    from penstock.config import Config

_PEM = "-----BEGIN "


def pipeline_of(conf: Config, root: Path, now: Callable[[], float]) -> Pipeline:
    """Raises `ConfigError` for what does not go together, is unknown, or is not installed."""
    for name in conf.accept_content:
        serializer(name)
    keyring = keyring_of(conf, root)
    if PICKLE in conf.accept_content:
        _check_pickle(conf)
    bounds = Bounds(conf.inflate_max_bytes, conf.inflate_max_ratio)
    trust = None
    if keyring is not None:
        trust = Trust(keyring, now, largest=bounds.max_bytes, unsigned=conf.security_accept_unsigned)
    return Pipeline(Reader(conf.accept_content, bounds), conf.compression_min_bytes, trust)


def _check_pickle(conf: Config) -> None:
    if conf.security_key is None:
        raise ConfigError(
            "accept_content with 'pickle' needs security_key: whoever can write to the queue could run code here, so "
            "only signed messages may be pickled; or use 'json'"
        )
    if conf.security_accept_unsigned:
        raise ConfigError(
            "accept_content with 'pickle' and security_accept_unsigned=True do not go together: an unsigned message "
            "could run code here"
        )


def keyring_of(conf: Config, root: Path) -> Keyring | None:
    """The keys that the settings name; `None` without any. Raises `ConfigError`."""
    if conf.security_key is None:
        for name in ("certificate", "cert_store", "key_password", "accept_unsigned"):
            name = f"security_{name}"
            if getattr(conf, name):
                raise ConfigError(f"{name} needs security_key: who accepts signed messages signs what it sends")
        return None
    try:
        from penstock.codec import signing
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"security_key needs a library that is not installed ({error.name}): pip install 'penstock[signing]'"
        ) from error
    password = None if conf.security_key_password is None else conf.security_key_password.encode()
    private = signing.read_private("security_key", _pem("security_key", conf.security_key, root), password)
    public = private.public_key()
    own = signing.Accepted(signing.key_id(public), public)
    if conf.security_certificate is not None:
        pem = _pem("security_certificate", conf.security_certificate, root)
        own = signing.read_accepted("security_certificate", pem)[0]
    accepted = [
        one
        for what, pem in _store(conf.security_cert_store, root)
        for one in signing.read_accepted(f"security_cert_store: {what}", pem)
    ]
    return signing.Keyring(private, own, accepted, conf.security_digest)


def _pem(setting: str, given: str, root: Path) -> bytes:
    if given.lstrip().startswith(_PEM):
        return given.encode()
    path = root / Path(given).expanduser()
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error}") from error


def _store(entries: Iterable[str], root: Path) -> Iterable[tuple[str, bytes]]:
    """What the entries name, each with a name for errors."""
    import glob  # only who signs needs it

    for entry in entries:
        if entry.lstrip().startswith(_PEM):
            yield "the PEM given", entry.encode()
            continue
        pattern = str(root / Path(entry).expanduser())
        paths = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        if not paths:
            raise ConfigError(f"security_cert_store: no file matches {pattern}")
        for path in paths:
            yield path, _pem("security_cert_store", path, root)
