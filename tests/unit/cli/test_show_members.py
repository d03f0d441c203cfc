import click

from penstock.broker import Member
from penstock.cli.checks import check_members
from penstock.cli.findings import Level
from penstock.cli.show_members import members_table

LEADER = Member("one:6379", "leader")
NEAR = Member("two:6379", "replica", in_sync=True, lag=0.25, lag_bytes=2048)
FAR = Member("three:6379", "replica", in_sync=False, lag_bytes=0, note="catching up")
GONE = Member("four:\x1b6379", "witness", alive=False)


def test_what_the_server_tells_is_shown_and_the_rest_is_unknown() -> None:
    lines = click.unstyle(members_table([LEADER, NEAR, FAR, GONE])).splitlines()
    assert [line.split() for line in lines] == [
        ["server", "role", "state", "in", "sync", "lag"],
        ["one:6379", "leader", "alive", "?", "–"],
        ["two:6379", "replica", "alive", "yes", "250", "ms,", "2.0", "KiB"],
        ["three:6379", "replica", "alive", "catching", "up", "no", "0", "B"],
        ["four:�6379", "witness", "not", "reached", "?", "?"],
    ]


def test_the_doctor_warns_of_servers_that_are_gone() -> None:
    found = list(check_members([LEADER, NEAR, FAR, GONE]))
    assert [one.level for one in found] == [Level.OK, Level.OK, Level.NOTE, Level.WARNING]
    assert list(check_members([])) == []


def test_a_node_of_unknown_role_is_not_called_a_replica() -> None:
    [found] = check_members([Member("five:5672", "node", note="AMQP does not tell")])
    assert found.text == "five:5672 answers; AMQP does not tell"
