"""Encrypted connections: which end speaks what, whose certificates are trusted, and certificates that are renewed."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from penstock.engines.server import open_engine
from penstock.errors import AccessRefused, BrokerUnavailable, ConfigError
from penstock.server import listening
from penstock.server.settings import Tls
from tests.unit.server.house import ADA, PASSWORD, House

DAY = datetime.timedelta(days=1)
SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """Makes certificates, as files in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca = folder / f"{name}.pem"
        self.ca.write_bytes(self._certificate(self._name, self._key.public_key(), authority=True))

    def issue(self, common_name: str) -> Tls:
        """A certificate for 127.0.0.1 and this name, in files that it always has."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate, secret = self._folder / f"{common_name}.crt", self._folder / f"{common_name}.key"
        certificate.write_bytes(self._certificate(name, key.public_key(), authority=False))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Tls(str(certificate), str(secret))

    def _certificate(self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if authority:  # said in full: Python 3.13 asks for it
            made = made.add_extension(SIGNS_CERTIFICATES, critical=True)
        else:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


@pytest.fixture
def secured(tmp_path: Path, authority: Authority) -> Iterator[House]:
    with House(tmp_path / "data", tls=authority.issue("broker")) as house:
        yield house


def url(house: House, *options: str, secret: str = PASSWORD, user: str = ADA) -> str:
    told = f"{user}:{secret.replace(' ', '%20')}" if secret else user
    return f"penstocks://{told}@127.0.0.1:{house.port}/?" + "&".join(options)


def works(address: str) -> None:
    engine = open_engine(address)
    try:
        assert engine.run(engine.broker.depth("default")) == 0
    finally:
        engine.close()


def test_a_trusted_certificate_is_trusted_and_another_one_is_not(
    secured: House, authority: Authority, tmp_path: Path
) -> None:
    works(url(secured, f"ca={authority.ca}"))
    stranger = Authority(tmp_path / "strange", "stranger")
    for address in (url(secured), url(secured, f"ca={stranger.ca}")):
        with pytest.raises(ConfigError, match=r"certificate is not trusted .*ca=/path/to/ca.pem"):
            open_engine(address)


def test_a_plain_client_on_a_port_with_tls_is_told_what_to_write(secured: House) -> None:
    with pytest.raises((BrokerUnavailable, ConfigError)) as refused:
        open_engine(secured.url())
    assert "write penstocks://" in str(refused.value)
    assert "use penstock://" not in str(refused.value)


def test_a_client_with_tls_on_a_plain_port_is_told_what_to_write(
    house: House, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with pytest.raises(ConfigError, match="does not speak TLS: write penstock:// instead"):
        open_engine(url(house, f"ca={authority.ca}"))
    assert any("this is TLS, and this end is not" in one.getMessage() for one in caplog.records)


def test_certificates_are_read_again(secured: House, authority: Authority, tmp_path: Path) -> None:
    engine = open_engine(url(secured, f"ca={authority.ca}"))
    engine.run(engine.broker.depth("default"))
    renewed = Authority(tmp_path / "certificates", "renewed")
    renewed.issue("broker")  # into the files of the former
    secured.do(secured.listeners.reload)
    works(url(secured, f"ca={renewed.ca}"))
    with pytest.raises(ConfigError, match="not trusted"):
        open_engine(url(secured, f"ca={authority.ca}"))
    assert engine.run(engine.broker.depth("default")) == 0, "who is connected stays so"
    engine.close()


def test_certificates_that_do_not_fit_are_not_taken(secured: House, authority: Authority) -> None:
    (authority.ca.parent / "broker.key").write_text("no key")
    with pytest.raises(ConfigError, match="cannot be used"):
        secured.do(secured.listeners.reload)
    works(url(secured, f"ca={authority.ca}"))


def test_with_a_client_authority_a_certificate_is_needed_and_is_enough(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("broker")
    with House(tmp_path / "data", tls=Tls(own.certificate, own.key, str(authority.ca))) as house:
        ada, eve = authority.issue(ADA), authority.issue("eve")
        trust = f"ca={authority.ca}"
        works(url(house, trust, f"cert={ada.certificate}", f"key={ada.key}", secret=""))
        works(url(house, trust, f"cert={eve.certificate}", f"key={eve.key}"))  # with the password of another user
        with pytest.raises(AccessRefused):
            open_engine(url(house, trust, f"cert={eve.certificate}", f"key={eve.key}", secret=""))
        with pytest.raises((BrokerUnavailable, ConfigError)) as refused:
            open_engine(url(house, trust))
        assert "certificate" in str(refused.value).lower()


def test_a_handshake_that_does_not_go_on_is_ended(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody counts this connection yet."""
    monkeypatch.setattr(listening, "HELLO_PATIENCE", 0.3)
    with (
        House(tmp_path / "data", tls=authority.issue("broker")) as house,
        socket.create_connection(("127.0.0.1", house.port), timeout=5) as silent,
    ):
        began = time.monotonic()
        assert silent.recv(100) == b""
        assert time.monotonic() - began < 3
