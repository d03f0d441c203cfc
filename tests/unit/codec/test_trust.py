"""Signatures: what they cover, who may make them, and what a broker may still change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.clock import ManualClock
from penstock.codec import Trust
from penstock.codec.signing import Accepted, Keyring, key_id, read_accepted, read_private
from penstock.codec.trust import SignedValue
from penstock.errors import ConfigError, EncodeError, MessageTooLarge, SignatureError
from penstock.message import Message, Options, Signed, Unique, pack, unpack
from tests import keys

NOW = 1_800_000_000.0


def ring(key: Any, *accepted: Any, digest: str = "sha256") -> Keyring:
    """The keyring of who signs with `key` and accepts those of `accepted`."""
    public = key.public_key()
    others = [Accepted(key_id(one.public_key()), one.public_key()) for one in accepted]
    return Keyring(key, Accepted(key_id(public), public), others, digest)


def trust(keyring: Keyring, now: float = NOW, unsigned: bool = False) -> Trust:
    return Trust(keyring, lambda: now, largest=100_000, unsigned=unsigned)


MINE = keys.private()
TRUST = trust(ring(MINE))


def message(**fields: Any) -> Message:
    """A message with something in each field, but for a start."""
    usual: dict[str, Any] = {
        "version": 1,
        "task": "pay",
        "body": b'[["ada",5],{}]',
        "id": "order-1",
        "queue": "money",
        "priority": 5,
        "namespace": "shop",
        "partition": "ada",
        "expires": 1_900_000_000,  # an int, as callers may well give
        "content_type": "json",
        "guards": (Unique("pay:ada"),),
        "options": Options(time_limit=5, root_id="order-1"),
        "headers": {"trace": "abc", "penstock-unknown": "1"},
        "sent": NOW,
    }
    return Message(**{**usual, **fields})


def signed(**fields: Any) -> Message:
    made = message(**fields)
    TRUST.sign(made)
    return unpack(pack(made))


def test_what_was_signed_is_accepted_as_what_it_is() -> None:
    TRUST.accepted(signed(), "order-1")
    TRUST.accepted(signed(headers=None, options=None, expires=None, namespace="", sent=0.0), "order-1")


COVERED: dict[str, Any] = {
    "task": "refund",
    "body": b'[["ada",500],{}]',
    "queue": "default",
    "namespace": "",
    "expires": None,
    "content_type": "json+zlib",
    "options": Options(time_limit=500.0, root_id="order-1"),
    "headers": {"trace": "other"},
    "sent": NOW + 1,
}
MOVING: dict[str, Any] = {
    "version": 1,
    "id": None,
    "priority": 9,
    "partition": "",
    "eta": NOW + 5,
    "retries": 7,
    "attempts": 2,
    "guards": (),
}


def test_every_field_of_a_message_is_either_covered_or_known_to_move() -> None:
    assert {*COVERED, *MOVING, "signed"} == set(Message.__struct_fields__)


@pytest.mark.parametrize("field", COVERED)
def test_nobody_may_change_what_is_covered(field: str) -> None:
    changed = replace(signed(), **{field: COVERED[field]})
    with pytest.raises(SignatureError, match="does not hold: the message was changed"):
        TRUST.accepted(changed, "order-1")


@pytest.mark.parametrize("field", MOVING)
def test_brokers_and_workers_may_change_what_moves(field: str) -> None:
    TRUST.accepted(replace(signed(), **{field: MOVING[field]}), "order-1")


def test_headers_of_our_own_move_and_others_do_not() -> None:
    counted = replace(signed(), headers={"trace": "abc", "penstock-unknown": "2", "penstock-other": "x"})
    TRUST.accepted(counted, "order-1")
    with pytest.raises(SignatureError):
        TRUST.accepted(replace(signed(), headers={"penstock-unknown": "1"}), "order-1")


@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_bit_of_a_signature_or_body_can_be_flipped(position: int, bit: int) -> None:
    made = signed()
    assert made.signed is not None
    body, signature = bytearray(made.body), bytearray(made.signed.signature)
    body[position % len(body)] ^= 1 << bit
    signature[position % len(signature)] ^= 1 << bit
    for changed in (
        replace(made, body=bytes(body)),
        replace(made, signed=replace(made.signed, signature=bytes(signature))),
    ):
        with pytest.raises(SignatureError):
            TRUST.accepted(changed, "order-1")


def test_stripping_the_signature_is_no_way_around_it() -> None:
    with pytest.raises(SignatureError, match="it is not signed, and only signed messages are accepted here"):
        TRUST.accepted(replace(signed(), signed=None), "order-1")


def test_unsigned_messages_may_be_let_in_but_never_wrong_ones() -> None:
    lenient = trust(ring(MINE), unsigned=True)
    lenient.accepted(message(), "order-1")
    with pytest.raises(SignatureError):
        lenient.accepted(replace(signed(), body=b"[[],{}]"), "order-1")


def test_a_copy_under_another_id_is_a_replay() -> None:
    with pytest.raises(SignatureError, match="it is a replay: it was signed as task order-1, and is delivered as"):
        TRUST.accepted(signed(), "order-2")
    made = signed()
    assert made.signed is not None
    with pytest.raises(SignatureError, match="does not hold"):
        TRUST.accepted(replace(made, signed=replace(made.signed, id="order-2")), "order-2")


def test_a_start_may_move_back_but_not_forward() -> None:
    made = signed(eta=NOW + 3600)
    with pytest.raises(SignatureError, match=r"signed to start 3,600 s from now: its eta was changed"):
        TRUST.accepted(replace(made, eta=None), "order-1")
    later = trust(ring(MINE), NOW + 3600)
    later.accepted(made, "order-1")
    later.accepted(replace(made, eta=None), "order-1")  # as the dead letters give it back
    later.accepted(replace(made, eta=NOW + 9999, retries=1), "order-1")
    trust(ring(MINE), NOW + 3590).accepted(made, "order-1")  # another machine's clock
    assert made.signed is not None
    with pytest.raises(SignatureError, match="does not hold"):
        TRUST.accepted(replace(made, signed=replace(made.signed, start=None)), "order-1")


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ec"])
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_each_kind_of_key_signs_and_verifies(kind: str, digest: str) -> None:
    key, stranger = keys.private(kind), keys.private(kind)
    made = message()
    trust(ring(key, digest=digest)).sign(made)
    trust(ring(MINE, key)).accepted(unpack(pack(made)), "order-1")  # whatever digest it uses itself
    with pytest.raises(SignatureError, match=r"signed by key '[0-9a-f]{16}', which is not in security_cert_store"):
        trust(ring(MINE, stranger)).accepted(made, "order-1")
    assert made.signed is not None
    forged = replace(made, signed=replace(made.signed, key=key_id(stranger.public_key())))
    with pytest.raises(SignatureError, match="does not hold"):
        trust(ring(MINE, key, stranger)).accepted(forged, "order-1")


@pytest.mark.parametrize("digest", ["", "md5", "sha384", "none"])
def test_the_digest_cannot_be_weakened(digest: str) -> None:
    key = keys.private("rsa")
    made = message()
    trust(ring(key)).sign(made)
    assert made.signed is not None
    with pytest.raises(SignatureError, match="does not hold"):
        trust(ring(key)).accepted(replace(made, signed=replace(made.signed, digest=digest)), "order-1")


def test_keys_are_rotated_without_a_gap() -> None:
    old, new = keys.private(), keys.private()
    before, after = message(), message()
    trust(ring(old)).sign(before)
    trust(ring(new)).sign(after)
    both = trust(ring(new, old))
    both.accepted(before, "order-1")
    both.accepted(after, "order-1")
    with pytest.raises(SignatureError):
        trust(ring(new)).accepted(before, "order-1")


def certified(key: Any, start: float, end: float) -> list[Accepted]:
    day = timedelta(days=1)
    pem = keys.certificate(
        key, datetime.fromtimestamp(NOW, UTC) + start * day, datetime.fromtimestamp(NOW, UTC) + end * day
    )
    return read_accepted("c", pem.encode())


def test_certificates_count_while_they_are_valid() -> None:
    key = keys.private("rsa")
    (current,), (ended,), (coming,) = certified(key, -1, 1), certified(key, -9, -1), certified(key, 1, 9)
    made = message()
    trust(Keyring(key, current, (), "sha256")).sign(made)
    trust(Keyring(MINE, ring(MINE)._own, [ended, current], "sha256")).accepted(made, "order-1")
    for other in (ended, coming):
        with pytest.raises(SignatureError, match=r"whose certificate is valid from .* only"):
            trust(Keyring(MINE, ring(MINE)._own, [other], "sha256")).accepted(made, "order-1")
        with pytest.raises(ConfigError, match=r"security_certificate is valid from .* only: renew it"):
            trust(Keyring(key, other, (), "sha256")).sign(message())
    assert current.id == ended.id == key_id(key.public_key())


def test_a_certificate_of_another_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="security_certificate is of another key than security_key"):
        Keyring(MINE, certified(keys.private(), -1, 1)[0], (), "sha256")


def test_nothing_huge_is_hashed() -> None:
    with pytest.raises(MessageTooLarge, match="inflate_max_bytes=100,000"):
        TRUST.sign(message(body=bytes(100_001)))
    with pytest.raises(SignatureError, match="103,000 bytes are not looked at"):
        TRUST.accepted(replace(signed(), body=bytes(103_000)), "order-1")
    with pytest.raises(EncodeError, match="a result of 100,001 bytes"):
        TRUST.wrap("result", "order-1", bytes(100_001))


def test_a_message_without_an_id_cannot_be_signed() -> None:
    with pytest.raises(ConfigError, match="without an id cannot be signed"):
        TRUST.sign(message(id=None))


# -- results


def test_a_result_is_signed_as_that_of_its_task() -> None:
    data = TRUST.wrap("result", "order-1", b'{"paid":5}', "json")
    assert TRUST.result("order-1", data, "json+signed") == (b'{"paid":5}', "json")
    with pytest.raises(SignatureError, match="the result order-2: the signature by key"):
        TRUST.result("order-2", data, "json+signed")
    with pytest.raises(SignatureError, match="the result order-1: the signature by key"):
        TRUST.result("order-1", data, "json+zlib+signed")
    with pytest.raises(SignatureError, match="the part order-1: the signature by key"):
        TRUST.unwrap("part", "order-1", data, "json")
    with pytest.raises(SignatureError, match="the result of task order-1 is not signed"):
        TRUST.result("order-1", b'{"paid":5}', "json")
    assert trust(ring(MINE), unsigned=True).result("order-1", b"1", "json") == (b"1", "json")


@given(junk=st.binary(max_size=300))
def test_any_bytes_are_a_signed_result_or_an_error(junk: bytes) -> None:
    with pytest.raises(SignatureError):
        TRUST.result("order-1", junk, "json+signed")
    forged = message()
    forged.signed = Signed(key_id(MINE.public_key()), junk, "order-1")
    with pytest.raises(SignatureError):
        TRUST.accepted(forged, "order-1")


def test_a_message_cannot_stand_for_a_result() -> None:
    made = signed()
    assert made.signed is not None
    one = made.signed
    with pytest.raises(SignatureError):
        TRUST.result(
            "order-1", msgspec.msgpack.encode(SignedValue(one.key, one.digest, one.signature, made.body)), "json+signed"
        )


# -- keys


@pytest.mark.parametrize("text", ["", "-----BEGIN PRIVATE KEY-----\nnot base64\n-----END PRIVATE KEY-----\n", "junk"])
def test_what_is_no_key_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="security_key is not a private key in PEM"):
        read_private("security_key", text.encode(), None)
    with pytest.raises(ConfigError, match=r"store\.pem is not a certificate or public key in PEM"):
        read_accepted("store.pem", text.encode())


def test_passwords_of_keys() -> None:
    locked = keys.pem(MINE, b"secret").encode()
    assert read_private("k", locked, b"secret").private_bytes_raw() == MINE.private_bytes_raw()  # type: ignore[union-attr]  # it is of Ed25519
    for password in (None, b"wrong"):
        with pytest.raises(ConfigError, match="k is not a private key in PEM that can be read"):
            read_private("k", locked, password)


def test_keys_that_are_too_weak_or_of_another_kind_are_refused() -> None:
    other = x25519.X25519PrivateKey.generate()
    with pytest.raises(ConfigError, match="use Ed25519, RSA or an elliptic curve"):
        read_private("k", keys.pem(other).encode(), None)
    with pytest.raises(ConfigError, match="use Ed25519, RSA or an elliptic curve"):
        read_accepted("k", keys.public_pem(other).encode())
    with pytest.raises(ConfigError, match="k is an RSA key of 1024 bits; at least 2048 are needed"):
        read_accepted("k", WEAK)


WEAK = b"""-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkoORe4/ivxVL9BqTCrkA+0gE3
dGs1ZgDqn2LMkXfX2onLZjh8xgwhay4yhvcRecnyy601LqI7u0c8G0G2eGgtfzCg
e1zIcmTaq5lpOl/KkP0cIDJogggHX88ytLgkUIVWQk7kIJN6ubhW9BZplAechxmj
gpHkXLUr9C7qWN1v9QIDAQAB
-----END PUBLIC KEY-----
"""


def test_many_certificates_in_one_file() -> None:
    one, two = keys.private(), keys.private("ec")
    found = read_accepted("c", (keys.certificate(one) + keys.certificate(two)).encode())
    assert [each.id for each in found] == [key_id(one.public_key()), key_id(two.public_key())]


def test_time_comes_from_the_clock_that_is_given() -> None:
    clock = ManualClock()
    made = message(eta=clock.time() + 100, expires=None)
    own = Trust(ring(MINE), clock.time, largest=1 << 20)
    own.sign(made)
    with pytest.raises(SignatureError, match="signed to start"):
        own.accepted(made, "order-1")
    clock.advance(100)
    own.accepted(made, "order-1")
