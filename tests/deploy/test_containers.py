"""The image, the compose file and the Kubernetes objects: as far as that can be seen without an engine to run them."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

import penstock
from tests.doc_pages import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
BIN = Path(sys.executable).parent
UID = 10001
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
VARIABLES = {"PENSTOCK_BROKER_DATA", "PENSTOCK_BROKER_BIND", "PENSTOCK_BROKER_TLS_CERT", "PENSTOCK_BROKER_TLS_KEY"}
"""What the broker's command reads."""


def load(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def objects(kind: str | None = None) -> list[dict[str, Any]]:
    found = [one for path in KUBERNETES for one in load(path) if one["kind"] != "Kustomization"]
    return [one for one in found if kind in (None, one["kind"])]


# -- the image


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    copy = tmp_path_factory.mktemp("image") / "Dockerfile"
    shutil.copy(DEPLOY / "Dockerfile", copy)
    return [(one["instruction"], one["value"]) for one in DockerfileParser(str(copy)).structure]


def test_a_linter_finds_nothing_in_the_image() -> None:
    done = subprocess.run([BIN / "hadolint", DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def stages(instructions: list[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    """Name → its instructions, those of the stages that it is built on first."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, value in instructions:
        if word == "FROM":
            base, _, name = value.partition(" AS ")
            found[name] = [*found.get(base, []), (word, value)]
        elif name:
            found[name].append((word, value))
    return found


@pytest.mark.parametrize("stage", ["broker", "worker"])
def test_an_image_is_pinned_fetches_nothing_and_is_nobodys_root(
    instructions: list[tuple[str, str]], stage: str
) -> None:
    steps = stages(instructions)[stage]
    bases = [value.split()[0] for word, value in instructions if word == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+|runtime", base) for base in bases), bases
    fetching = re.compile(r"https?://|\b(curl|wget|git)\b")
    assert not [value for word, value in steps if word == "ADD" or (word != "HEALTHCHECK" and fetching.search(value))]
    assert [value for word, value in steps if word == "USER"] == [f"{UID}:{UID}"]
    assert f"--uid {UID}" in dict(steps)["RUN"]
    assert dict(steps)["ENTRYPOINT"] == '["penstock"]'
    assert dict(steps)["CMD"] == f'["{stage}"]'


def test_the_broker_s_image_keeps_its_data_in_a_volume_and_says_whether_it_serves(
    instructions: list[tuple[str, str]],
) -> None:
    steps = dict(stages(instructions)["broker"])
    assert steps["VOLUME"] == '["/var/lib/penstock"]'
    assert steps["EXPOSE"] == "7419"
    assert '"broker", "check"' in steps["HEALTHCHECK"]
    assert "PENSTOCK_BROKER_DATA=/var/lib/penstock" in steps["ENV"]
    assert set(re.findall(r"PENSTOCK_[A-Z_]+", steps["ENV"])) <= VARIABLES


def test_what_the_image_copies_is_there_and_not_ignored(instructions: list[tuple[str, str]]) -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    copied = [value.split() for word, value in instructions if word == "COPY" and "--from" not in value]
    for source in (one for words in copied for one in words[:-1]):
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in ignore, source
    extras = re.search(r"'\.\[([\w,]+)\]'", (DEPLOY / "Dockerfile").read_text())
    assert extras is not None
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras[1].split(","))


# -- compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    (found,) = load(DEPLOY / "compose.yaml")
    return found


def test_the_compose_file_is_one() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_locked_down(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"broker", "worker", "app"}
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "user", "network_mode", "pid"} & set(service), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_what_compose_names_is_there(compose: dict[str, Any]) -> None:
    targets = set(re.findall(r" AS (\w+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    for name, service in compose["services"].items():
        assert service["build"]["target"] in targets
        assert (DEPLOY / service["build"]["context"]).resolve() == REPOSITORY
        assert (REPOSITORY / service["build"]["dockerfile"]).exists()
        assert set(service["secrets"]) <= set(compose["secrets"]), name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_dir(), name
        for value in service.get("environment", {}).values():
            assert value.removeprefix("/run/secrets/") in service["secrets"], name
    broker = compose["services"]["broker"]
    assert "data:/var/lib/penstock" in broker["volumes"]
    assert {one for one in broker["environment"] if one.startswith("PENSTOCK")} <= VARIABLES
    for file in (DEPLOY / "example").glob("*.py"):
        compile(file.read_text(), file.name, "exec")


def test_images_carry_the_version_of_the_package() -> None:
    text = "".join(path.read_text() for path in (DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", *KUBERNETES))
    assert set(re.findall(r"penstock-(?:broker|worker):(\d+\.[\w.]+)", text)) == {penstock.__version__}
    assert "latest" not in text


# -- the secrets of compose


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "secrets"
    done = subprocess.run([DEPLOY / "make-secrets", folder], capture_output=True, text=True, timeout=60, check=True)
    assert "users add letters --password-stdin" in done.stdout
    return folder


def test_secrets_are_kept_from_others_and_never_overwritten(secrets: Path, compose: dict[str, Any]) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    made = {path.name for path in secrets.iterdir()}
    assert made == {"tls.crt", "tls.key", "letters.password", "client.env"}
    assert {Path(one["file"]).name for one in compose["secrets"].values()} <= made
    password = (secrets / "letters.password").read_text().strip()
    assert len(password) == 48
    url = f"penstocks://letters:{password}@broker:7419/?ca=/run/secrets/tls.crt"
    assert (secrets / "client.env").read_text() == f"PENSTOCK_BROKER_URL={url}\n"
    again = subprocess.run([DEPLOY / "make-secrets", secrets], capture_output=True, text=True, timeout=60)
    assert (again.returncode, (secrets / "letters.password").read_text().strip()) == (1, password)
    ignored = subprocess.run(["git", "check-ignore", "deploy/secrets/tls.key"], cwd=REPOSITORY, capture_output=True)
    assert ignored.returncode == 0


@pytest.mark.parametrize("name", ["broker", "penstock-broker", "localhost", "127.0.0.1"])
def test_clients_that_trust_the_certificate_reach_the_broker_by_its_names(secrets: Path, name: str) -> None:
    ours, theirs = _pair()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(secrets / "tls.crt", secrets / "tls.key")
    client = ssl.create_default_context(cafile=secrets / "tls.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by default
    serving = threading.Thread(target=lambda: server.wrap_socket(theirs, server_side=True).close())
    serving.start()
    with client.wrap_socket(ours, server_hostname=name) as connection:
        assert connection.version() == "TLSv1.3"
    serving.join(10)


def _pair() -> tuple[Any, Any]:
    import socket

    pair = socket.socketpair()
    for one in pair:
        one.settimeout(10)
    return pair


# -- Kubernetes


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for one in [*objects("StatefulSet"), *objects("Deployment")]:
        yield one["metadata"]["name"], one["spec"]["template"]["spec"]


@pytest.mark.parametrize("found", objects(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_the_objects_fit_their_schemas(found: dict[str, Any]) -> None:
    kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


def test_a_schema_that_is_not_met_is_seen() -> None:
    wrong = objects("StatefulSet")[0]
    wrong["spec"]["replica"] = wrong["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_every_pod_is_locked_down() -> None:
    names = []
    for name, pod in pods():
        names.append(name)
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"], security["fsGroup"]) == (True, UID, UID), name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False), name
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert "memory" in container["resources"]["limits"], name
    assert names == ["penstock-broker", "penstock-worker"]


def test_there_is_one_broker_with_a_disk_of_its_own() -> None:
    (broker,) = objects("StatefulSet")
    assert broker["spec"]["replicas"] == 1
    (claim,) = broker["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    (container,) = broker["spec"]["template"]["spec"]["containers"]
    assert {"name": claim["metadata"]["name"], "mountPath": "/var/lib/penstock"} in container["volumeMounts"]
    assert container["livenessProbe"]["tcpSocket"] == {"port": "penstock"}
    health = (DEPLOY / "Dockerfile").read_text().partition("HEALTHCHECK")[2].partition("CMD ")[2].splitlines()[0]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"] == json.loads(health)
    names = {one["name"] for one in container["env"]}
    assert {one for one in names if one.startswith("PENSTOCK")} <= VARIABLES


def test_what_the_objects_name_is_there() -> None:
    known_secrets = {one["metadata"]["name"] for one in objects("Secret")} | {"penstock-tls"}
    for one in [*objects("StatefulSet"), *objects("Deployment")]:
        spec = one["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        pod = spec["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
        used = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            used |= {source["secretRef"]["name"] for source in container.get("envFrom", [])}
        assert used <= known_secrets
    (service,) = objects("Service")
    (broker,) = objects("StatefulSet")
    assert service["spec"]["selector"].items() <= broker["spec"]["template"]["metadata"]["labels"].items()
    assert broker["spec"]["serviceName"] == service["metadata"]["name"]
    (secret,) = objects("Secret")
    host = secret["stringData"]["PENSTOCK_BROKER_URL"].partition("@")[2].partition(":")[0]
    assert host == service["metadata"]["name"]


def test_no_password_is_in_the_repository() -> None:
    (secret,) = objects("Secret")
    assert all("CHANGE-ME" in value for value in secret["stringData"].values())
    (kustomization,) = load(DEPLOY / "kubernetes/kustomization.yaml")
    assert "secret.yaml" not in kustomization["resources"]
    assert all((DEPLOY / "kubernetes" / one).exists() for one in kustomization["resources"])
