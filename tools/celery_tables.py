"""Make the tables of docs/guides/coming-from-celery.md from docs/celery-checklist.toml.

.venv/bin/python -m tools.celery_tables
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from penstock.celery_options import CALL, TASK
from penstock.celery_settings import instead

DOCS = Path(__file__).parent.parent / "docs"
CHECKLIST = DOCS / "celery-checklist.toml"
PAGE = DOCS / "guides" / "coming-from-celery.md"
BEGIN, END = "<!-- made by tools/celery_tables.py: {} -->\n", "<!-- end of what is made -->\n"
WORDS = ("same", "better", "different", "later", "no")
"""What becomes of something that Celery has; in the tables in this order."""
SETTINGS = "Settings"
REMEDIES: Mapping[str, Callable[[str], str | None]] = MappingProxyType(
    {SETTINGS: instead, "Task options": TASK.get, "Calling": CALL.get}
)
"""Groups of which errors say what to write instead: a row that says nothing itself says that."""
CODE = re.compile(r"[\w.]+|.*[(|~].*|celery .*|-\w+")
"""Names that are written as code; the others are words."""


class Row(NamedTuple):
    of: tuple[str, ...]
    word: str
    how: str
    proof: str
    see: str


class Group(NamedTuple):
    title: str
    names: tuple[str, ...]
    rows: tuple[Row, ...]


class Pain(NamedTuple):
    number: int
    what: str
    how: str
    word: str
    proofs: tuple[str, ...]


class Checklist(NamedTuple):
    version: str
    pains: tuple[Pain, ...]
    groups: tuple[Group, ...]


def read() -> Checklist:
    given = tomllib.loads(CHECKLIST.read_text("utf-8"))
    pains = tuple(Pain(one["number"], one["what"], one["how"], one["is"], tuple(one["proof"])) for one in given["pain"])
    groups = tuple(
        Group(one["title"], _names(one["names"]), tuple(_row(row, REMEDIES.get(one["title"])) for row in one["rows"]))
        for one in given["group"]
    )
    return Checklist(given["celery"], pains, groups)


def _names(given: str | list[str]) -> tuple[str, ...]:
    return tuple(given.split() if isinstance(given, str) else given)


def _row(given: dict[str, Any], remedy: Callable[[str], str | None] | None) -> Row:
    of, word, how = _names(given["of"]), given["is"], given.get("how", "")
    if not how and word != "same" and remedy is not None:
        remedies = {remedy(name) for name in of}
        if len(remedies) != 1:
            raise SystemExit(f"{CHECKLIST}: {', '.join(of)} have several remedies; give each a row")
        how = remedies.pop() or ""
    return Row(of, word, how, given.get("proof", ""), given.get("see", ""))


def names_of(title: str) -> tuple[str, ...]:
    """Celery's names in one group."""
    [names] = (group.names for group in read().groups if group.title == title)
    return names


def tables() -> dict[str, str]:
    """The text between the markers of each name."""
    checklist = read()
    return {"pains": _table(_pains(checklist)), "checklist": _groups(checklist)}


def _pains(checklist: Checklist) -> Iterator[tuple[str, ...]]:
    yield "", "in Celery", "here", "shown by"
    for pain in checklist.pains:
        shown = ", ".join(f"`{proof.rpartition('::')[2]}`" for proof in pain.proofs)
        yield str(pain.number), pain.what, f"**{pain.word}.** {pain.how}", shown


def _groups(checklist: Checklist) -> str:
    count = Counter(row.word for group in checklist.groups for row in group.rows for _ in row.of)
    summed = ", ".join(f"{count[word]} {word}" for word in WORDS)
    text = f"Of {count.total()} names of Celery {checklist.version}: {summed}.\n"
    for group in checklist.groups:
        plain = [name for row in group.rows if row.word == "same" and not row.how for name in row.of]
        rows = [row for row in group.rows if row.word != "same" or row.how]
        rows.sort(key=lambda row: WORDS.index(row.word))
        text += f"\n### {group.title}\n\nThe same: {_shown(plain)}.\n\n" if plain else f"\n### {group.title}\n\n"
        text += _table([("Celery", "", "Penstock"), *((_shown(row.of), row.word, _how(row)) for row in rows)])
    return text


def _shown(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" if CODE.fullmatch(name) else name for name in names)


def _how(row: Row) -> str:
    if not row.see:
        return row.how
    place = row.see.removeprefix("guides/") if row.see.startswith("guides/") else f"../{row.see}"
    return f"{row.how} ([more]({place}))" if row.how else f"[more]({place})"


def _table(rows: Any) -> str:
    first, *rest = (tuple(cell.replace("|", "\\|") for cell in row) for row in rows)
    lines = [f"| {' | '.join(first)} |", f"|{'---|' * len(first)}", *(f"| {' | '.join(row)} |" for row in rest)]
    return "".join(f"{line}\n" for line in lines)


def with_tables(text: str) -> str:
    """The page's text with the tables as they should be."""
    for name, made in tables().items():
        begin = BEGIN.format(name)
        before, found, rest = text.partition(begin)
        _, end, after = rest.partition(END)
        if not found or not end:
            raise SystemExit(f"{PAGE}: there is no place for {name}, between {begin.strip()} and {END.strip()}")
        text = f"{before}{begin}\n{made}\n{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
