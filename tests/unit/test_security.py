"""From settings to the pipeline: what goes together, where keys come from, and what is never shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError, Penstock, codec
from penstock.codec import Pipeline
from penstock.config import read_config
from penstock.security import pipeline_of
from tests import keys

MINE, THEIRS = keys.private(), keys.private("rsa")


def pipeline(root: Path = Path("/nowhere"), **settings: Any) -> Pipeline:
    return pipeline_of(read_config(settings), root, lambda: 0.0)


def accepted(made: Pipeline) -> int:
    """How many keys are accepted, the own one among them."""
    assert made.trust is not None
    return len(made.trust._keyring._accepted)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"accept_content": ["json", "pickel"]}, "unknown serializer 'pickel'; did you mean 'pickle'"),
        ({"accept_content": []}, "accept_content must be a list of serializers"),
        ({"accept_content": "json"}, "accept_content must be a list, not the string 'json'"),
        ({"accept_content": [5]}, "accept_content must be a list of serializers"),
        ({"accept_content": None}, "accept_content must be a list, not None"),
        ({"imports": 5}, "imports must be a list, not 5"),
        ({"security_cert_store": 5}, "security_cert_store must be a list, not 5"),
        ({"accept_content": ["json", "pickle"]}, "'pickle' needs security_key: whoever can write"),
        (
            {"accept_content": ["json", "pickle"], "security_key": "MINE", "security_accept_unsigned": True},
            "an unsigned message could run code here",
        ),
        ({"accept_content": ["msgpack"]}, "serializer 'json' is not in accept_content"),
        ({"result_serializer": "yaml"}, "serializer 'yaml' is not in accept_content: this app's own workers would"),
        ({"task_serializer": "pickle"}, "'pickle' is not in accept_content: whoever can write"),
        ({"task_compression": "zst"}, "unknown compression 'zst'; did you mean 'zstd'"),
        ({"result_compression": "gz"}, "unknown compression 'gz'"),
        ({"inflate_max_bytes": 0}, "inflate_max_bytes must be at least 1"),
        ({"security_cert_store": "a.pem"}, "security_cert_store needs security_key"),
        ({"security_certificate": "a.pem"}, "security_certificate needs security_key"),
        ({"security_accept_unsigned": True}, "security_accept_unsigned needs security_key"),
        ({"security_key": "MINE", "security_digest": "md5"}, "security_digest must be 'sha256', 'sha384' or 'sha512'"),
        ({"security_key": "missing.pem"}, "security_key: /nowhere/missing.pem cannot be read: .*No such file"),
        ({"security_key": "MINE", "security_cert_store": ["*.pem"]}, r"no file matches /nowhere/\*.pem"),
        ({"security_key": "MINE", "security_cert_store": ["x.pem"]}, "/nowhere/x.pem cannot be read"),
        ({"security_key": "MINE", "security_certificate": "THEIRS"}, "security_certificate is of another key than"),
        ({"security_key": "THEIRS"}, "security_key is not a private key in PEM"),
        ({"security_key": "bad\0path"}, "security_key: .* cannot be read"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_together_is_refused_when_it_is_declared(settings: dict[str, Any], why: str) -> None:
    texts = {"MINE": keys.pem(MINE), "THEIRS": keys.certificate(THEIRS)}
    given = {name: texts.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}
    with pytest.raises(ConfigError, match=why):
        pipeline(**given)


def test_an_app_that_says_nothing_has_no_keys_and_reads_data_only() -> None:
    made = Penstock("unit", broker="memory://").pipeline
    assert made.trust is None
    assert [name for name in ("json", "msgpack", "yaml", "pickle") if made.reader.accepts(name)] == ["json", "msgpack"]


def test_pickle_for_who_opts_in_and_signs() -> None:
    settings: Any = {"accept_content": ["json", "pickle"], "task_serializer": "pickle"}
    app = Penstock("unit", broker="memory://", security_key=keys.pem(MINE), **settings)
    assert app.task(name="t")(lambda: None).format.name == "pickle"


def test_keys_come_from_files_below_the_projects_root(tmp_path: Path) -> None:
    (tmp_path / "mine.pem").write_text(keys.pem(MINE, b"secret"))
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/a.pem").write_text(keys.certificate(THEIRS))
    (tmp_path / "certs/b.pem").write_text(keys.public_pem(keys.private("ec")))
    made = pipeline(
        tmp_path,
        security_key="mine.pem",
        security_key_password="secret",
        security_cert_store=["certs/*.pem", keys.public_pem(keys.private())],
    )
    assert accepted(made) == 4
    assert (
        accepted(pipeline(tmp_path, security_key=keys.pem(MINE), security_cert_store=str(tmp_path / "certs/a.pem")))
        == 2
    )


def test_secrets_are_not_shown() -> None:
    conf = read_config({"security_key": keys.pem(MINE, b"secret"), "security_key_password": "secret"})
    assert "secret" not in repr(conf)
    assert "PRIVATE" not in repr(conf)
    with pytest.raises(ConfigError) as raised:
        read_config({"security_key": keys.pem(MINE).encode()})
    assert str(raised.value) == "security_key must be PEM, or the path of a PEM file, not 'bytes'"


def test_keys_without_the_library_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "penstock.codec.signing", None)
    monkeypatch.delattr(codec, "signing", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[signing\]'"):
        pipeline(security_key=keys.pem(MINE))


@pytest.mark.parametrize("option", ["serializer", "compression"])
def test_options_of_tasks_and_calls_are_checked_where_they_are_written(option: str) -> None:
    app = Penstock("unit", broker="memory://")
    wrong: dict[str, Any] = {option: "yaml"}
    with pytest.raises(ConfigError, match="'yaml'"):
        app.task(name="wrong", **wrong)(lambda: None)
    task = app.task(name="t")(lambda: None)
    with pytest.raises(ConfigError, match="'yaml'"):
        task.apply_async(**wrong)
    with pytest.raises(ConfigError, match="'yaml'"):
        app.send_task("unknown", **wrong)
    app.close()
