"""'Did you mean': the nearest known name, for errors about unknown ones."""

from __future__ import annotations

from collections.abc import Iterable


def hint(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` when `word` is close to a known name, else the known names if they are few, else
    nothing."""
    import difflib  # only on the way to an error

    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 8 else ""
