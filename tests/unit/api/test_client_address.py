"""Whose address a request comes from, with and without proxies."""

from typing import Any

import pytest

from api.client_address import address_key, client_address


def _scope(client: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return {"type": "http", "client": None if client is None else (client, 1), "headers": headers}


@pytest.mark.parametrize(
    ("client", "forwarded", "trusted", "address"),
    [
        ("203.0.113.9", [], [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], ["10.0.0.0/8"], "203.0.113.9"),
        ("10.0.0.2", ["198.51.100.1"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.2", ["6.6.6.6, 198.51.100.1"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.2", ["6.6.6.6", "198.51.100.1, 10.0.0.3"], ["10.0.0.0/8"], "198.51.100.1"),
        ("10.0.0.2", ["10.0.0.4, 10.0.0.3"], ["10.0.0.0/8"], "10.0.0.4"),
        ("10.0.0.2", ["<script>"], ["10.0.0.0/8"], "10.0.0.2"),
        ("10.0.0.2", ["", " , "], ["10.0.0.2/32"], "10.0.0.2"),
        ("::1", ["2001:db8::7"], ["::1/128"], "2001:db8::7"),
        (None, ["198.51.100.1"], ["0.0.0.0/0"], ""),
    ],
)
def test_only_a_trusted_proxy_names_the_client(
    client: str | None, forwarded: list[str], trusted: list[str], address: str
) -> None:
    assert client_address(_scope(client, *forwarded), trusted) == address


def test_an_ipv6_client_is_its_network() -> None:
    assert address_key("2001:db8:1:2:3::4") == address_key("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert address_key("::ffff:198.51.100.1") == address_key("198.51.100.1") == "198.51.100.1"
    assert address_key("") == ""
