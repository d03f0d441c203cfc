from __future__ import annotations

import pytest

from penstock.errors import ConfigError
from penstock.server.access.tokens import DAY, check_life, digest_of, mint, parse, read_life, same


def test_a_token_is_its_id_and_a_secret_of_which_a_digest_is_kept() -> None:
    token_id, text, digest = mint()
    found = parse(text)
    assert found is not None and found[0] == token_id
    assert same(found[1], digest) and digest == digest_of(found[1])
    assert not same(found[1] + "x", digest) and not same("", digest) and not same(found[1], b"")
    assert found[1].encode() not in digest
    assert mint()[1] != text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pst_",
        "pst__",
        "password",
        "pst_0123456789ab_short",
        "pst_0123456789AB_" + "a" * 43,
        "x" + "pst_0123456789ab_" + "a" * 43,
        "pst_0123456789ab_" + "a" * 43 + "\n",
        "pst_0123456789ab_" + "ä" * 43,
        "\ud800",
        "pst_0123456789ab_" + "a" * 10_000,
    ],
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("12h", 43_200), ("30d", 30 * DAY), ("2w", 14 * DAY)])
def test_a_life_is_read(text: str, seconds: float) -> None:
    assert read_life(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 d", "1y", "never", "٣d", "9999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a time"):
        read_life(text)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 59.0, 3_651 * DAY, float("inf"), float("nan")])
def test_no_token_lives_for_ever(seconds: float) -> None:
    with pytest.raises(ConfigError, match="a token lives"):
        check_life(seconds)
