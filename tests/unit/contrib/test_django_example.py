"""examples/django_shop: orders by Django's test client, receipts by a worker of its own manage.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 12):
    pytest.skip(
        "NOT TESTED: Django 6, which examples/django_shop needs, needs Python 3.12; `make test-3.12` runs it",
        allow_module_level=True,
    )

EXAMPLE = Path(__file__).parents[3] / "examples/django_shop"

ORDER = """
from django.core.management import CommandError, call_command
from django.test import Client
call_command("migrate", verbosity=0)
call_command("check", fail_level="WARNING")
client = Client()
sent = client.post("/orders", {"customer": "ada"}).json()["receipt"]
call_command("penstock", "peek", "mail")
try:
    call_command("penstock", "peek", "--nonsense")
except CommandError as error:
    assert error.returncode == 2
print(sent, client.get(f"/receipts/{sent}").json()["status"], client.get("/count").json()["count"])
"""
LOOK = """
import sys
from django.test import Client
from shop.models import Order
from shop.tasks import count_orders, send_receipt
sent, counted = {ids}
print(Client().get(f"/receipts/{{sent}}").json())
result = send_receipt.get_result(sent)
print(result.status, result.args, result.attempts, Order.objects.get().receipt)
print(count_orders.get_result(counted).return_value)
print(Client().get("/receipts/unknown").status_code)
"""
ADMIN = """
from django.contrib.auth.models import User
from django.test import Client
client = Client()
client.force_login(User.objects.create_superuser("ada"))
page = client.get("/admin/penstock/queue/")
print(page.status_code)
print("mail" in page.content.decode())
"""


class Shop:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
        ours = ("PENSTOCK", "DJANGO")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def manage(self, *words: str, code: int = 0) -> str:
        # From another folder: manage.py knows where it is.
        command = [sys.executable, str(self.folder / "manage.py"), *words]
        done = subprocess.run(
            command, cwd=self.folder.parent, env=self._environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout

    def python(self, code: str) -> list[str]:
        return self.manage("shell", "--no-imports", "-c", code).splitlines()


def test_a_receipt_is_sent_by_a_worker(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop")
    *peeked, last = shop.python(ORDER)
    sent, status, counted = last.split()
    assert "shop.tasks.send_receipt" in "".join(peeked)
    assert status == "READY"
    assert "mail" in shop.manage("penstock", "worker", "--burst", "-c", "1")
    receipt = "Thank you, ada! (attempt 1)"
    assert shop.python(LOOK.format(ids=(sent, counted))) == [
        str({"status": "SUCCESSFUL", "receipt": receipt}),
        f"SUCCESSFUL [1] 1 {receipt}",
        "1",
        "404",
    ]
    shop.manage("penstock", "purge", "nonsense", "--what", code=2)
    assert shop.python(ADMIN) == ["200", "True"]
