"""The only reader and writer of message bodies and result values."""

from penstock.codec.arguments import Arguments
from penstock.codec.failures import Failure, failure, inherited, read_failure, rebuild, summary
from penstock.codec.gathered import around, check_fate, fate_in, fate_item
from penstock.codec.returns import Returned
from penstock.codec.values import Format, check_encoded, reader, serializer, transcoded

__all__ = [
    "Arguments",
    "Failure",
    "Format",
    "Returned",
    "around",
    "check_encoded",
    "check_fate",
    "failure",
    "fate_in",
    "fate_item",
    "inherited",
    "read_failure",
    "reader",
    "rebuild",
    "serializer",
    "summary",
    "transcoded",
]
