"""Addresses of previews: each build has its own host, and no other host is taken for one."""

import uuid

import pytest

from domain.preview_address import build_of_host, is_related, preview_address, preview_source

BUILD = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")


@pytest.mark.parametrize(
    ("pattern", "address"),
    [
        ("http://*.localhost:8000", f"http://{BUILD.hex}.localhost:8000"),
        ("https://preview-*.example.com", f"https://preview-{BUILD.hex}.example.com"),
    ],
)
def test_an_address_names_its_build(pattern: str, address: str) -> None:
    assert preview_address(pattern, BUILD) == preview_address(pattern, str(BUILD)) == address
    assert build_of_host(pattern, address.partition("://")[2]) == BUILD
    assert build_of_host(pattern, address.partition("://")[2].partition(":")[0].upper() + ".:99") == BUILD


@pytest.mark.parametrize(
    ("pattern", "source"),
    [
        ("http://*.localhost:8000", "http://*.localhost:8000"),
        ("https://preview-*.example.com", "https://*.example.com"),
    ],
)
def test_one_source_stands_for_all_previews(pattern: str, source: str) -> None:
    assert preview_source(pattern) == source


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost:8000",
        "127.0.0.1",
        "[::1]:8000",
        f"{BUILD}.localhost",
        f"{BUILD.hex}.localhost.example.com",
        f"x.{BUILD.hex}.localhost",
        f"x{BUILD.hex}.localhost",
        f"{BUILD.hex}localhost",
        f"{BUILD.hex}xlocalhost",
        f"{BUILD.hex}.localhost\n",
    ],
)
def test_other_hosts_are_no_previews(host: str) -> None:
    assert build_of_host("http://*.localhost:8000", host) is None


@pytest.mark.parametrize(
    ("pattern", "public_url", "related"),
    [
        ("http://*.localhost:8000", "http://127.0.0.1:8000", False),
        ("http://*.localhost:8000", "http://localhost:8000", False),
        ("https://*.preview-example.com", "https://cofounder.example.com", False),
        ("https://*.xexample.com", "https://example.com", False),
        ("https://*.example.com", "https://example.com", True),
        ("https://*.example.com", "https://cofounder.example.com", True),
        ("https://p-*.preview.cofounder.example.com", "https://cofounder.example.com", True),
    ],
)
def test_domains_that_share_cookies(pattern: str, public_url: str, related: bool) -> None:
    assert is_related(pattern, public_url) is related
