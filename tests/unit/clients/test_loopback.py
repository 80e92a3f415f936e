"""Which URLs lead to this machine, and how Python reaches names below `localhost`."""

import pytest

from clients.loopback import address_of, is_loopback, with_address


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost", "https://[::1]:1/x", "http://u:p@LOCALHOST"]
)
def test_this_machine(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize("url", [None, "", "https://h", "http://notlocalhost", "http://127.0.0.1.example"])
def test_elsewhere(url: str | None) -> None:
    assert not is_loopback(url)


def test_names_below_localhost_have_the_address_of_this_machine() -> None:
    assert [address_of(host) for host in ("localhost", "a.localhost")] == ["127.0.0.1"] * 2
    assert [address_of(host) for host in ("notlocalhost", "h.example", "::1")] == ["notlocalhost", "h.example", "::1"]
    assert with_address("http://8000-i.localhost:3001/a?b=c") == (
        "http://127.0.0.1:3001/a?b=c",
        {"Host": "8000-i.localhost:3001"},
    )
    assert with_address("http://a.localhost/") == ("http://127.0.0.1:80/", {"Host": "a.localhost"})
    assert with_address("https://8000-i.e2b.app/") == ("https://8000-i.e2b.app/", {})
