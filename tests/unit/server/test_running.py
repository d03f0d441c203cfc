from __future__ import annotations

import pytest

from penstock.engines.server.settings import read_settings
from penstock.server.access.book import Credential
from penstock.server.running import sign_in_url


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("penstock://127.0.0.1:7419", "penstock://bootstrap:s3cret@127.0.0.1:7419/"),
        ("penstocks://[::1]:7419", "penstocks://bootstrap:s3cret@[::1]:7419/"),
        ("unix:///run/penstock.sock", "penstock://bootstrap:s3cret@localhost/?socket=/run/penstock.sock"),
    ],
)
def test_the_first_credential_comes_with_a_url_that_can_be_used(address: str, url: str) -> None:
    assert sign_in_url(address, Credential("bootstrap", "s3cret")) == url
    assert read_settings(url).address.user == "bootstrap"
