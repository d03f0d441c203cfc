"""What a gateway says of itself when it starts."""

from __future__ import annotations

from pathlib import Path

from penstock import Penstock
from penstock.gateway import BrokerUsers, GatewaySettings, TokenFile
from penstock.gateway.anybody import anybody
from penstock.gateway.banner import MOST, banner


def test_it_says_where_it_publishes_what_and_for_whom(tmp_path: Path) -> None:
    app = Penstock("shop", broker=f"sqlite:///{tmp_path}/queue.db")
    assert "none: is the module" in banner(app, anybody, GatewaySettings())
    for number in range(MOST + 3):
        app.task(name=f"tasks.t{number:02}")(lambda: None)
    app.task(name="internal.audit")(lambda: None)
    said = banner(app, anybody, GatewaySettings(expose=("tasks.*",)))
    assert f"broker     sqlite:///{tmp_path}/queue.db" in said
    assert "survives   loss of power" in said
    assert "lets in    everybody on this machine" in said
    assert "tasks.t00" in said
    assert "and 3 more" in said
    assert "internal" not in said
    assert "lets in    nobody" in banner(app, TokenFile(tmp_path / "tokens.json"), GatewaySettings())
    app.close()


def test_the_users_of_a_broker_are_let_in_by_it_whose_password_is_not_told() -> None:
    app = Penstock("shop", broker="penstock://me:secret@127.0.0.1:7419/space")
    users = BrokerUsers(app)
    said = banner(app, users, GatewaySettings())
    assert "broker     penstock://127.0.0.1:7419/space" in said
    assert "secret" not in said
    assert "lets in    the broker's users" in said
    users.close()
