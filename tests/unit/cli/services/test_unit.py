from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli.services.definition import BIND, DATA, Service
from penstock.cli.services.systemd import (
    Systemd,
    check_reachable,
    closed_to_others,
    read_status,
    system_place,
    user_place,
)
from penstock.cli.services.unit import MARK, listen_stream, quoted, service_unit, socket_unit
from penstock.errors import ConfigError

ENVIRONMENT = Path("/etc/penstock/x.env")
HOME = Path("/home/ada")


def broker(user: str | None = None, **environment: str) -> Service:
    given = {DATA: "/var/lib/penstock-broker", BIND: "tcp://127.0.0.1:7419", **environment}
    return Service(name="broker", program=("/v/bin/python", "-m", "penstock.cli"), user=user, environment=given)


def worker(folder: str = "/srv/letters") -> Service:
    return Service(
        name="worker-mail", program=("/v/bin/python",), folder=Path(folder), user="letters", environment={"S": "hush"}
    )


def lines(service: Service, system: bool = True, sockets: bool = False) -> list[str]:
    place = system_place(service.name) if system else user_place(service.name, HOME, {})
    return service_unit(service, place, ENVIRONMENT, sockets).splitlines()


def test_a_broker_tells_when_it_serves_and_may_write_only_its_own() -> None:
    unit = lines(broker())
    assert {"Type=notify", "WatchdogSec=30", "DynamicUser=yes", "StateDirectory=penstock-broker"} < set(unit)
    assert {"ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "PrivateDevices=yes"} < set(unit)
    assert "ExecStart=/v/bin/python -m penstock.cli broker $PENSTOCK_OPTIONS" in unit
    assert f"EnvironmentFile={ENVIRONMENT}" in unit


def test_a_folder_of_somebody_needs_them_as_its_user() -> None:
    elsewhere = {DATA: "/data/my queue"}
    unit = lines(broker("ada", **elsewhere))
    assert {"User=ada", 'ReadWritePaths="/data/my queue"'} < set(unit)
    assert not any("StateDirectory" in line or "DynamicUser" in line for line in unit)
    with pytest.raises(ConfigError, match="say who owns your folder, with --as"):
        lines(broker(**elsewhere))


def test_a_socket_file_where_the_broker_may_not_write_is_refused() -> None:
    bind = {BIND: "unix:///run/penstock.sock"}
    with pytest.raises(ConfigError, match=r"use unix:///run/penstock-broker/penstock\.sock, or --socket"):
        lines(broker(**bind))
    assert "Requires=penstock-broker.socket" in lines(broker(**bind), sockets=True)
    assert lines(broker(**{BIND: "unix:///run/penstock-broker/penstock.sock"}))


def test_a_worker_runs_as_its_user_in_its_folder_and_keeps_its_secrets() -> None:
    unit = lines(worker("/srv/my 100% app"))
    assert {"Type=exec", "User=letters", "WorkingDirectory=/srv/my 100%% app", "KillMode=mixed"} < set(unit)
    assert "Description=Penstock worker mail" in unit
    assert not any("hush" in line for line in unit)


def test_a_user_s_manager_gets_nothing_that_it_cannot_do() -> None:
    unit = lines(broker(), system=False)
    assert "WantedBy=default.target" in unit
    assert not any(line.startswith(("User=", "DynamicUser", "Protect", "Private", "StateDirectory")) for line in unit)


def test_the_sockets_of_a_broker() -> None:
    bind = {BIND: "tcp://0.0.0.0:7419 tcp://[::1]:7420 unix:///run/100%.sock"}
    streams = [line for line in socket_unit(broker(**bind)).splitlines() if line.startswith("Listen")]
    assert streams == ["ListenStream=0.0.0.0:7419", "ListenStream=[::1]:7420", "ListenStream=/run/100%%.sock"]


@pytest.mark.parametrize("bind", ["tcp://localhost:7419", "tcp://broker.example:7419"])
def test_names_that_systemd_does_not_look_up_are_refused(bind: str) -> None:
    with pytest.raises(ConfigError, match="systemd opens no names"):
        listen_stream(bind)


@pytest.mark.parametrize("bind", ["tcp://:7419", "tcp://1.2.3.4:65536", "http://x:1", "7419", "unix://relative.sock"])
def test_what_is_no_address_is_refused(bind: str) -> None:
    with pytest.raises(ConfigError, match="write tcp://host:port"):
        listen_stream(bind)


def test_a_socket_file_with_a_line_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match="without control characters"):
        listen_stream("unix:///run/x%0AExecStart=/bin/sh")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("-m", "-m"),
        ("/a b/python", '"/a b/python"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ('a"b\\', '"a\\"b\\\\"'),
        (";", '";"'),
    ],
)
def test_words_are_taken_literally(word: str, text: str) -> None:
    assert quoted(word) == text


def test_who_runs_what() -> None:
    system, user = Systemd("system", HOME, {}), Systemd("user", HOME, {})
    nobody = Service(name="worker", program=("p",), folder=Path("/srv"), environment={})
    with pytest.raises(ConfigError, match="say with --as USER who runs your tasks"):
        system.plan(nobody, False)
    with pytest.raises(ConfigError, match="--as is for the machine's systemd"):
        user.plan(worker(), False)
    assert [file.path for file in system.plan(broker(), True)] == [
        Path("/etc/systemd/system/penstock-broker.service"),
        Path("/etc/systemd/system/penstock-broker.socket"),
    ]
    assert [file.path for file in user.plan(nobody, False)] == [HOME / ".config/systemd/user/penstock-worker.service"]


def test_a_unit_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    user = Systemd("user", tmp_path, {})
    unit = tmp_path / ".config/systemd/user/penstock-worker.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    nobody = Service(name="worker", program=("p",), folder=Path("/srv"), environment={})
    for ask in (lambda: user.install(nobody, False), lambda: user.uninstall("worker")):
        with pytest.raises(ConfigError, match="was not written by `penstock service install`"):
            ask()
    assert "bin/true" in unit.read_text()
    assert MARK not in unit.read_text()


def test_what_systemctl_tells() -> None:
    told = (
        "Result=success\nNRestarts=0\nMainPID=23\nMemoryCurrent=245760\nActiveState=active\nSubState=running\n"
        "InactiveEnterTimestamp=@1795818000\nActiveEnterTimestamp=@1795818028\n"
    )
    status = read_status("worker", "system", told, "log")
    assert (status.running, status.since, status.pid, status.memory, status.note) == (
        True, 1795818028, 23, 245760, ""
    )  # fmt: skip
    told = (
        "Result=exit-code\nNRestarts=5\nMainPID=0\nMemoryCurrent=[not set]\nActiveState=activating\n"
        "SubState=auto-restart\nInactiveEnterTimestamp=@1795818000\nActiveEnterTimestamp=\n"
    )
    status = read_status("worker", "system", told, "log")
    assert (status.running, status.since, status.pid, status.memory) == (False, 1795818000, None, None)
    assert status.note == "activating (auto-restart); ended by exit-code; started anew 5 times after it died"
    unset = "MemoryCurrent=18446744073709551615\nActiveState=inactive\nSubState=dead\n"
    assert read_status("worker", "system", unset, "log").memory is None


def test_a_program_that_a_stranger_cannot_run_is_refused(tmp_path: Path) -> None:
    assert closed_to_others("/bin/sh") is None
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    program = home / "python"
    program.touch(mode=0o755)
    link = Path("/tmp") / f"penstock-test-{tmp_path.name}-{id(program)}"
    link.symlink_to(program)
    try:
        with pytest.raises(ConfigError, match=r"which cannot run .* is closed to it; install Penstock where everybody"):
            check_reachable(str(link))
    finally:
        link.unlink()
