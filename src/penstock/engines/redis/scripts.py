"""The Lua scripts: a file per verb, with the files that it builds on before it."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files

from msgspec import Struct

LANES = ("prelude", "limiting", "lanes", "limits")
BASE = (*LANES, "keys", "streams", "ending", "revoking")
VERBS = {
    "publish": ("lone", *BASE, "accepting", "burying", "shedding"),
    "follow_up": (*BASE, "accepting"),
    "step": (*BASE, "accepting", "burying", "leasing", "settling", "claiming"),
    "unwait": LANES,
    "extend": ("prelude",),
    "results": (*BASE, "leasing", "viewing"),
    "workers": (*BASE, "leasing"),
    "shared": (*BASE, "accepting"),
    "inspect": (*BASE, "leasing", "viewing"),
    "view": (*BASE, "leasing", "glass", "viewing"),
}
BOUNDED = frozenset({"publish"})
"""Verbs that may be refused when memory is full; all others end work, or are needed to end it."""
READING = frozenset({"view"})
"""Verbs that a replica may run."""
FLAGS_SINCE = (7, 0)


class Script(Struct, frozen=True):
    verb: str
    text: bytes
    sha: bytes


def load(version: tuple[int, ...]) -> dict[str, Script]:
    """All scripts, as a server of this version wants them, by verb."""
    folder = files(__package__) / "lua"
    parts = {name: (folder / f"{name}.lua").read_text("utf-8") for name in {*VERBS, *sum(VERBS.values(), ())}}
    return {verb: _script(verb, [parts[name] for name in (*needs, verb)], version) for verb, needs in VERBS.items()}


def _script(verb: str, parts: list[str], version: tuple[int, ...]) -> Script:
    if version >= FLAGS_SINCE:
        flag = "no-writes" if verb in READING else "allow-oom"
        head = "#!lua\n" if verb in BOUNDED else f"#!lua flags={flag}\n"
    else:
        # Once such a server has let a script write, it refuses none of its writes for want of memory.
        head = "" if verb in BOUNDED | READING else "redis.call('DEL', KEYS[1] .. ':none')\n"
    text = (head + "\n".join(parts)).encode()
    return Script(verb, text, sha1(text, usedforsecurity=False).hexdigest().encode())
