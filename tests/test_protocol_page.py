"""docs/protocol.md has every kind, field, verb and code of the protocol, in order; its bytes and numbers are true."""

import json
import re
from typing import get_args

import pytest

from penstock import broker, message, outcome, queue
from penstock.coordinator import WorkerInfo
from penstock.protocol.calls import VERBS
from penstock.protocol.refusals import CODES
from penstock.protocol.replies import Refused, Reply, Welcome
from penstock.protocol.requests import Hello, Request
from tests import doc_pages
from tests.doc_pages import DOCS
from tools import protocol_vectors

PAGE = DOCS / "protocol.md"
FRAMES = sorted({Hello, Welcome, Refused, *get_args(Request), *get_args(Reply)}, key=lambda one: one.__name__)
VALUES = (
    *(
        message.Message,
        message.Options,
        message.Signed,
        message.Place,
        message.Fate,
        broker.Demand,
        outcome.Outcome,
        outcome.Report,
        outcome.Progress,
        outcome.Part,
        outcome.Parts,
        WorkerInfo,
    ),
    *(queue.Queue, queue.QueueInfo, broker.Peeked, broker.DeadLetter, broker.Member, broker.Features),
)


def fields(heading: str) -> list[str]:
    return [cell for row in doc_pages.first_cells(PAGE, heading) if len(row) == 1 for cell in row]


@pytest.mark.parametrize("kind", FRAMES, ids=lambda one: one.__name__)
def test_every_kind_is_documented_field_by_field(kind: type) -> None:
    tag = kind.__struct_config__.tag  # type: ignore[attr-defined]  # every kind is a struct
    (heading,) = [one for one in doc_pages.headings(PAGE) if one.startswith(f"{tag} ")]
    assert tuple(fields(heading))[: len(kind.__struct_fields__)] == kind.__struct_fields__  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", VALUES, ids=lambda one: one.__name__)
def test_every_value_is_documented_field_by_field(kind: type) -> None:
    assert tuple(fields(kind.__name__)) == kind.__struct_fields__  # type: ignore[attr-defined]  # every value is a struct


def test_every_verb_is_documented() -> None:
    assert fields("Verbs") == list(VERBS)


def test_every_code_is_documented() -> None:
    assert fields("Errors") == list(CODES)


def test_the_bytes_on_the_page_are_vectors() -> None:
    vectors = json.loads(protocol_vectors.FILE.read_text("utf-8"))
    known = {one["frame"] for one in vectors["frames"]}
    blocks = [block.code for block in doc_pages.blocks(PAGE) if block.language == "text"]
    shown = re.findall(r"\b[0-9a-f]{8,}$", "".join(blocks), re.MULTILINE)
    assert len(shown) == sum(code.count("\n") for code in blocks) > 0
    assert set(shown) <= known


def test_numbers_on_the_page_are_those_of_the_code() -> None:
    from penstock.engines.sqlite.hearing import MARKS, RING, SESSIONS
    from penstock.guarding import MAX_GUARDS, MAX_KEY
    from penstock.protocol import PORT
    from penstock.protocol.frames import HELLO_FRAME, MAX_FRAME
    from penstock.protocol.requests import MOST_BATCHES, MOST_ITEMS, MOST_PAIRS
    from penstock.server import peer, rights_check, session, verbs
    from penstock.server.access.passwords import MAX_PASSWORD
    from penstock.server.checking import MAX_MESSAGE, MAX_QUEUES
    from penstock.server.crew import GRACE, SILENCE

    text = PAGE.read_text("utf-8")
    for said in (
        f"The port is {PORT}.",
        f"16 MiB; before the welcome {HELLO_FRAME >> 10} KiB",
        f"a frame has at most {HELLO_FRAME:,} bytes",
        f"must be there within {peer.HELLO_PATIENCE:g} s",
        f"Up to {MAX_PASSWORD:,} bytes",
        f"a packed message | {MAX_MESSAGE >> 20} MiB",
        f"settlements of a step | {session.MAX_BATCH:,}",
        f"items of a call | {MOST_PAIRS:,}",
        f"not answered | {peer.MAX_UNANSWERED:,}, or {peer.MAX_UNANSWERED_BYTES >> 20} MiB",
        f"has begun | {peer.FRAME_PATIENCE:g} s",
        f"from {peer.HIGH_WATER >> 20} MiB on",
        f"cut off after {peer.STALLED:g} s of it, or at {peer.MAX_UNREAD >> 20} MiB",
        f"waited for on a connection | {session.MAX_WATCHED:,}",
        f"shared state | {MAX_KEY:,} characters",
        f"a value of the shared state | {verbs.MAX_VALUE >> 20} MiB",
        f"[guard] = [] | {MAX_GUARDS} at most",
        f"first; {MAX_QUEUES:,} at most",
        f"tasks, 0 to {rights_check.MAX_LIMIT:,}",
        f"= 30 | {rights_check.MAX_LEASE:,.0f} at most",
        f"= 0 | {rights_check.MAX_WAIT:g} at most",
        f"has {GRACE:g} s to join again",
        f"or after {SILENCE:g} s in which",
        f"first keys, at most {verbs.MAX_FETCHED:,} and about {verbs.ANSWER >> 20} MiB",
        f"{MOST_BATCHES} batches, and {MOST_ITEMS:,} messages, in a frame",
        f"the last {MARKS} answers are kept",
        f"the newest {RING:,} answers",
        f"more than {SESSIONS:,} sessions",
        f"a frame | {MAX_FRAME >> 20} MiB",
    ):
        assert said in text, said
