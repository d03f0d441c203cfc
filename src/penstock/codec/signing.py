"""Keys and signatures: Ed25519, and RSA or elliptic curves, bare or in an X.509 certificate. Pure: keys come as PEM.

A key's id is the beginning of the SHA-256 of its public half, so that nobody has to name keys, and a renewed
certificate of the same key keeps its id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from msgspec import Struct

from penstock.errors import ConfigError, SignatureError

PrivateKey = ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | rsa.RSAPublicKey | ec.EllipticCurvePublicKey

DIGESTS: dict[str, type[hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}
"""For RSA and elliptic curves; Ed25519 has its own."""
ID = 16
"""Hexadecimal digits of a key's id."""
SMALLEST_RSA = 2048


class Accepted(Struct, frozen=True):
    """A key whose signatures are accepted; of a certificate, while it is valid (Unix times)."""

    id: str
    key: PublicKey
    start: float = float("-inf")
    end: float = float("inf")


class Keyring:
    """The key that signs here, and those whose signatures are accepted: the key itself, too."""

    def __init__(self, private: PrivateKey, own: Accepted, accepted: Iterable[Accepted], digest: str) -> None:
        """Raises `ConfigError` when `own` (a certificate) is of another key than `private`."""
        self._private = private
        self._own = own
        self._accepted: dict[str, list[Accepted]] = {}
        for one in (own, *accepted):
            self._accepted.setdefault(one.id, []).append(one)
        self.key_id = own.id
        self.digest = "" if isinstance(private, ed25519.Ed25519PrivateKey) else digest
        if key_id(private.public_key()) != own.id:
            raise ConfigError("security_certificate is of another key than security_key")

    @property
    def others(self) -> list[str]:
        """The ids of the accepted keys besides the own."""
        return [id for id in self._accepted if id != self.key_id]

    def check_own(self, now: float) -> None:
        """Raise `ConfigError` when the own certificate is not valid at `now`."""
        if not self._own.start <= now <= self._own.end:
            raise ConfigError(f"security_certificate {_validity(self._own)}: renew it, nobody would accept this")

    def sign(self, statement: bytes) -> bytes:
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            return self._private.sign(statement)
        digest = DIGESTS[self.digest]()
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(statement, _pss(digest), digest)
        return self._private.sign(statement, ec.ECDSA(digest))

    def verify(self, key: str, digest: str, signature: bytes, statement: bytes, now: float) -> None:
        """Raises `SignatureError` unless the key is accepted and its certificate valid at `now`, and the signature is
        its own, of this very statement."""
        known = self._accepted.get(key)
        if known is None:
            raise SignatureError(f"signed by key {key[:ID]!r}, which is not in security_cert_store")
        valid = [one for one in known if one.start <= now <= one.end]
        if not valid:
            raise SignatureError(f"signed by key {key}, whose certificate {_validity(known[-1])}")
        try:
            _verify(valid[0].key, digest, signature, statement)
        except (InvalidSignature, ValueError):
            raise SignatureError(
                f"the signature by key {key} does not hold: the message was changed, or somebody else signed it"
            ) from None


def _verify(key: PublicKey, digest: str, signature: bytes, statement: bytes) -> None:
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(signature, statement)
        return
    if digest not in DIGESTS:
        raise InvalidSignature
    algorithm = DIGESTS[digest]()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, statement, _pss(algorithm), algorithm)
    else:
        key.verify(signature, statement, ec.ECDSA(algorithm))


def _pss(digest: hashes.HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)


def _validity(accepted: Accepted) -> str:
    start, end = (datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds") for at in (accepted.start, accepted.end))
    return f"is valid from {start} to {end} only"


def key_id(key: PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of its DER, as `openssl pkey -pubout -outform DER` writes it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()[:ID]


def read_private(what: str, pem: bytes, password: bytes | None) -> PrivateKey:
    """The private key in `pem`; `what` names it in errors. Raises `ConfigError`."""
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{what} is not a private key in PEM that can be read: {error}") from error
    if isinstance(key, PrivateKey):
        check_public(what, key.public_key())
        return key
    raise ConfigError(f"{what} is a key of a kind that is not used here: use Ed25519, RSA or an elliptic curve")


def read_accepted(what: str, pem: bytes) -> list[Accepted]:
    """The certificates, or the public key, in `pem`; `what` names them in errors. Raises `ConfigError`."""
    try:
        if b"-----BEGIN CERTIFICATE-----" in pem:
            return [_of_certificate(what, one) for one in x509.load_pem_x509_certificates(pem)]
        key = check_public(what, serialization.load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{what} is not a certificate or public key in PEM: {error}") from error
    return [Accepted(key_id(key), key)]


def _of_certificate(what: str, certificate: x509.Certificate) -> Accepted:
    key = check_public(what, certificate.public_key())
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Accepted(key_id(key), key, start.timestamp(), end.timestamp())


def check_public(what: str, key: object) -> PublicKey:
    """The key, if its kind is used here. Raises `ConfigError`."""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < SMALLEST_RSA:
        raise ConfigError(f"{what} is an RSA key of {key.key_size} bits; at least {SMALLEST_RSA} are needed")
    if isinstance(key, PublicKey):
        return key
    raise ConfigError(f"{what} is a key of a kind that is not used here: use Ed25519, RSA or an elliptic curve")
