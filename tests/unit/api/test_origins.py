"""Which requests with a cookie a page of another site may have made."""

import pytest
from starlette.datastructures import Headers

from api.origins import host_of, is_of_own_page

PUBLIC = "https://cofounder.example.com"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin", "origin": PUBLIC}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": PUBLIC}, True),
        ({}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "https://b.preview.example.com"}, False),
        ({"sec-fetch-site": "cross-site", "origin": PUBLIC}, False),
        ({"sec-fetch-site": "same-origin", "origin": "https://evil.example"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://cofounder.example.com"}, False),
        ({"origin": f"{PUBLIC}:8443"}, False),
        ({"origin": f"{PUBLIC}.evil.example"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, False),
        ({"sec-fetch-site": ""}, False),
    ],
)
def test_changing_needs_evidence(method: str, headers: dict[str, str], passes: bool) -> None:
    assert is_of_own_page(method, Headers(headers), PUBLIC) is passes


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}, False),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": PUBLIC}, True),
    ],
)
def test_reading_is_refused_with_evidence_of_another_site(method: str, headers: dict[str, str], passes: bool) -> None:
    assert is_of_own_page(method, Headers(headers), PUBLIC) is passes


def test_a_host_has_no_port_and_no_capitals() -> None:
    assert host_of("//Example.COM.:8000") == "example.com"
    assert host_of("//[::1]:8000") == "::1"
    assert host_of("http://127.0.0.1") == "127.0.0.1"
    assert host_of("//[") == ""
