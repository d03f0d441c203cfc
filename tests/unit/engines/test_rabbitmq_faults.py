"""Every error of the driver, and every reply code of the protocol, is one of ours."""

import inspect
import ssl

import pytest
from pika import exceptions

from penstock.engines.rabbitmq import faults
from penstock.errors import BrokerError, BrokerUnavailable, ConfigError, PenstockError, UnknownQueue

URL = "amqp://guest@localhost:5672/"
DRIVER = [
    each
    for _, each in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(each, Exception) and each.__module__ == exceptions.__name__
]
CODES = (311, 312, 313, 320, 402, 403, 404, 405, 406, 501, 502, 503, 504, 505, 506, 530, 540, 541)


def test_there_are_errors_to_map() -> None:
    assert len(DRIVER) > 20


@pytest.mark.parametrize("kind", DRIVER, ids=lambda kind: kind.__name__)
def test_every_error_of_the_driver_is_mapped(kind: type[Exception]) -> None:
    assert any(ancestor in faults.DRIVER for ancestor in kind.__mro__), f"{kind.__name__} is not mapped"


@pytest.mark.parametrize(
    "error", [ConnectionRefusedError("no"), TimeoutError(), ssl.SSLError("bad"), OSError(113, "no route")], ids=repr
)
def test_errors_of_the_socket_are_unavailable(error: OSError) -> None:
    found = faults.of_driver(URL, error)
    assert isinstance(found, BrokerUnavailable)
    assert URL in str(found)


def test_an_unknown_error_is_a_broker_error_and_ours_stays() -> None:
    assert type(faults.of_driver(URL, KeyError("x"))) is BrokerError
    ours = ConfigError("mine")
    assert faults.of_driver(URL, ours) is ours


@pytest.mark.parametrize("code", CODES)
def test_every_reply_code_is_mapped(code: int) -> None:
    found = faults.of_close(URL, code, "WHY")
    assert isinstance(found, PenstockError)
    assert "WHY" in str(found)
    assert code in faults.CODES


def test_a_queue_with_other_arguments_is_named_with_the_argument_and_the_remedy() -> None:
    text = (
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'mail' in vhost '/': "
        "received the value 'quorum' of type 'longstr' but current is none"
    )
    found = faults.of_close(URL, 406, text)
    assert isinstance(found, ConfigError)
    for part in ("'mail'", "'x-queue-type'", "declare=passive"):
        assert part in str(found)


def test_the_consumer_timeout_is_named() -> None:
    text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms"
    assert "consumer_timeout" in str(faults.of_close(URL, 406, text))


def test_a_missing_queue() -> None:
    assert isinstance(faults.of_close(URL, 404, "NOT_FOUND - no queue 'x' in vhost '/'"), UnknownQueue)


@pytest.mark.parametrize("words", ["access to exchange", "write access to exchange"])
def test_a_missing_right_to_publish_names_the_right(words: str) -> None:
    error = faults.of_close(URL, 403, f"ACCESS_REFUSED - {words} 'amq.default' in vhost '/' refused for user 'web'")
    assert isinstance(error, faults.NoRight)
    assert error.exchange == ""
    assert r"grant write on ^amq\.default$" in str(error)
