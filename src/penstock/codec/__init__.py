"""The only reader and writer of message bodies and result values."""

from penstock.codec.arguments import Arguments
from penstock.codec.failures import Failure, failure, read_failure, rebuild, summary
from penstock.codec.returns import Returned
from penstock.codec.values import Format, reader, serializer

__all__ = [
    "Arguments",
    "Failure",
    "Format",
    "Returned",
    "failure",
    "read_failure",
    "reader",
    "rebuild",
    "serializer",
    "summary",
]
