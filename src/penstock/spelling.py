"""What errors show: the nearest known name for an unknown one, and URLs without their passwords."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that `word` is close to."""
    import difflib  # only on the way to an error

    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), None)


def hint(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` when `word` is close to a known name, else the known names if they are few, else
    nothing."""
    names = sorted(known)
    close = nearest(word, names)
    if close is not None:
        return f"; did you mean {close!r}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= 8 else ""


def without_password(url: str) -> str:
    """`url` as people may see it. Of one that is written wrongly, too, where the password may be anywhere before the
    last @."""
    head, mark, rest = url.partition("://")
    if not mark:
        head, rest = "", url
    before, at, after = rest.rpartition("@")
    if not at:
        import re  # few get here

        return re.sub("(password=)[^&]*", r"\1***", url)
    login, given, _ = before.partition(":")
    return f"{head}{mark}{login}{':***' if given else ''}@{after.partition('?')[0]}"
