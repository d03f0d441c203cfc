"""A request as both faces give it, and what its parts mean. Everything in it is hostile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from msgspec import Struct

from penstock.gateway.problems import Refused

MAX_QUERY = 4_096
"""Characters of a query string."""
MAX_NUMBER = 40
"""Characters of a number."""
MOST_DIGITS = 15
"""Of a count, or of a body's length."""
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")
_TRUE, _FALSE = ("", "1", "true", "yes"), ("0", "false", "no")


class Request(Struct, frozen=True):
    """`path` begins below `root`, where the gateway is mounted; `headers` by their names in small letters; `client` is
    the address of the other end, as far as the server knows it."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    client: str = ""
    root: str = ""

    def arguments(self, known: tuple[str, ...]) -> dict[str, str]:
        """The query's arguments. Raises `Refused` for what is not `known`, or given twice."""
        if not self.query:
            return {}
        if len(self.query) > MAX_QUERY:
            raise Refused(414, "query-too-long", f"the query has over {MAX_QUERY:,} characters")
        try:
            pairs = parse_qsl(self.query, keep_blank_values=True, errors="strict", max_num_fields=20)
        except ValueError as error:
            raise Refused(400, "bad-query", "the query is no form of names and values in UTF-8") from error
        given: dict[str, str] = {}
        for name, value in pairs:
            if name not in known:
                raise Refused.field(f"query.{name[:100]}", f"is not known here; known: {', '.join(known) or 'none'}")
            if name in given:
                raise Refused.field(f"query.{name}", "is given twice")
            given[name] = value
        return given


def flag(arguments: Mapping[str, str], name: str) -> bool:
    """Whether `?name=true`, or `?name`, is given. Raises `Refused`."""
    text = arguments.get(name)
    if text is None or text in _FALSE:
        return False
    if text not in _TRUE:
        raise Refused.field(f"query.{name}", "must be true or false")
    return True


def seconds(arguments: Mapping[str, str], name: str, otherwise: float, most: float) -> float:
    """The time of `?name=20`; `most` for `?name` and `?name=true`, and for more. Raises `Refused`."""
    text = arguments.get(name)
    if text is None:
        return otherwise
    if text in ("", "true"):
        return most
    if len(text) > MAX_NUMBER or not _SECONDS.fullmatch(text):
        raise Refused.field(f"query.{name}", "must be a number of seconds, such as 20 or 0.5")
    return min(float(text), most)


def number(arguments: Mapping[str, str], name: str, text: str | None = None) -> int | None:
    """The count of `?name=12`, or of another `text` of that name. Raises `Refused`."""
    text = arguments.get(name) if text is None else text
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise Refused.field(f"query.{name}", "must be a whole number from 0 on")
    return int(text)
