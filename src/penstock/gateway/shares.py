"""How much of the gateway each client has: requests a second, and requests at a time. Decisions without I/O."""

from __future__ import annotations

import threading
from collections import OrderedDict

from penstock.clock import Clock
from penstock.gateway.problems import Refused
from penstock.gateway.settings import GatewaySettings

MOST_CLIENTS = 10_000
"""Clients that are remembered; without tokens each address is one."""


class Account:
    """What one client has left, and has open."""

    __slots__ = ("at", "left", "open")

    def __init__(self, left: float, at: float) -> None:
        self.left, self.at, self.open = left, at, 0


class Shares:
    """Thread-safe."""

    def __init__(self, settings: GatewaySettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self.open = 0

    def enter(self, client: str) -> Account:
        """A request begins; `leave` must follow. Raises `Refused`: 429 for who is over its share, 503 for all."""
        settings = self.settings
        with self._lock:
            account = self._account(client)
            if account.open >= settings.client_requests:
                raise Refused.later(
                    429, "over-share", f"{account.open:,} requests of this client are open, as many as it may have", 1
                )
            if self.open >= settings.open_requests:
                raise Refused.later(503, "busy", f"{self.open:,} requests are open, as many as this gateway takes", 1)
            if settings.rate is not None:
                self._pay(account, settings.rate)
            account.open += 1
            self.open += 1
            return account

    def leave(self, account: Account) -> None:
        with self._lock:
            account.open -= 1
            self.open -= 1

    def _pay(self, account: Account, rate: float) -> None:
        now = self._clock.monotonic()
        account.left = min(float(self.settings.burst), account.left + (now - account.at) * rate)
        account.at = now
        if account.left < 1:
            after = (1 - account.left) / rate
            raise Refused.later(429, "over-share", f"this client may send {rate:g} requests a second", after)
        account.left -= 1

    def _account(self, client: str) -> Account:
        account = self._accounts.get(client)
        if account is None:
            account = self._accounts[client] = Account(float(self.settings.burst), self._clock.monotonic())
            if len(self._accounts) > MOST_CLIENTS:
                self._forget_one()
        else:
            self._accounts.move_to_end(client)
        return account

    def _forget_one(self) -> None:
        """The one that was quiet for longest; who has requests open is somebody still, however many there are."""
        for client, account in self._accounts.items():
            if not account.open:
                del self._accounts[client]
                return
