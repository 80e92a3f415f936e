"""What passes through the gateway: nothing of ours reaches a product, and nothing of a product's reaches beyond it."""

import base64

import pytest

from api.gateway.headers import Route, cookies_named, credentials_in, request_headers, response_headers

ROUTE = Route("http://b1.localhost:8000", "https://3000-box.e2b.app", "traffic")
OURS = "our-token"


def passed(*headers: tuple[str, str]) -> dict[str, str]:
    """What of a request's headers the product gets."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    got = request_headers(raw, ROUTE, "203.0.113.9", lambda text: text == OURS)
    assert len({name for name, _ in got}) == len(got)
    return {name.decode(): value.decode("latin-1") for name, value in got}


def answered(*headers: tuple[str, str]) -> list[tuple[str, str]]:
    """What of a response's headers the browser gets."""
    got = response_headers([(name.encode(), value.encode("latin-1")) for name, value in headers], ROUTE)
    return [(name.decode(), value.decode("latin-1")) for name, value in got]


def test_a_product_sees_its_own_host_and_the_visitors_address() -> None:
    assert passed(("host", "b1.localhost:8000"), ("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=1.2.3.4")) == {
        "host": "3000-box.e2b.app",
        "x-forwarded-for": "203.0.113.9",
        "x-forwarded-proto": "http",
        "e2b-traffic-access-token": "traffic",
    }


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("http://b1.localhost:8000", "https://3000-box.e2b.app"),
        ("http://b1.localhost:8000/a?b=//c#d", "https://3000-box.e2b.app/a?b=//c#d"),
        ("https://b1.localhost:8000", "https://b1.localhost:8000"),
        ("http://b1.localhost:80001", "http://b1.localhost:80001"),
        ("http://other.example", "http://other.example"),
        ("null", "null"),
        ("http://[", "http://["),
    ],
)
def test_the_previews_own_origin_is_the_products_own(sent: str, seen: str) -> None:
    got = passed(("origin", sent), ("referer", sent))
    assert (got["origin"], got["referer"]) == (seen, seen)


@pytest.mark.parametrize(
    "name",
    [
        *("connection", "keep-alive", "te", "transfer-encoding", "upgrade", "proxy-authorization", "expect"),
        *("x-cofounder-key", "x-cofounder-user", "e2b-sandbox-id", "e2b-sandbox-port", "e2b-traffic-access-token"),
        *("x-forwarded-host", "x-forwarded-prefix", "x-real-ip", "content-length"),
    ],
)
def test_headers_that_do_not_pass(name: str) -> None:
    assert passed((name, "5")).get(name) in (None, "traffic")


def test_headers_named_by_the_connection_do_not_pass() -> None:
    got = passed(("connection", "close, X-Secret"), ("x-secret", "1"), ("accept", "a"), ("range", "bytes=0-1"))
    assert "x-secret" not in got
    assert (got["accept"], got["range"]) == ("a", "bytes=0-1")


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("a=1; __Host-cofounder-preview=secret; b=2", "a=1; b=2"),
        ('a="x; __Host-cofounder=secret; b="y', 'a="x; b="y'),
        ("cofounder=1;COFOUNDER-x=2;__secure-Cofounder_x=3;a=1", "a=1"),
        ("cofounders=1; my-cofounder=2", "cofounders=1; my-cofounder=2"),
        ("=cofounder=1; a", "a"),
        ("__Host-cofounder-preview", None),
    ],
)
def test_our_cookies_do_not_pass(sent: str, seen: str | None) -> None:
    assert passed(("cookie", sent)).get("cookie") == seen
    lines = request_headers([(b"cookie", sent.encode()), (b"cookie", b"z=1")], ROUTE, None, lambda _: False)
    assert dict(lines)[b"cookie"].decode() == (f"{seen}; z=1" if seen else "z=1")


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {OURS}",
        f"bearer   {OURS} ",
        OURS,
        f"Token token={OURS}",
        f'Digest a="{OURS}"',
        "Basic " + base64.b64encode(f"{OURS}:x".encode()).decode(),
        "basic " + base64.b64encode(f"x:{OURS}".encode()).decode(),
    ],
)
def test_our_credentials_do_not_pass(value: str) -> None:
    assert "authorization" not in passed(("authorization", value))


@pytest.mark.parametrize("value", ["Bearer theirs", "Basic !", "Basic YTpi", "", "Bearer"])
def test_a_products_own_credentials_pass(value: str) -> None:
    assert passed(("authorization", value))["authorization"] == value
    assert credentials_in(value.encode()) is not None


@pytest.mark.parametrize(
    "cookie",
    [
        "a=1; Domain=localhost",
        "a=1; path=/; DOMAIN =.example.com",
        "a=1;domain",
        "a=1;\tDomain=x",
        "__Host-cofounder=1; Path=/; Secure",
        "Cofounder-preview=1",
        "=cofounder=1",
        "cofounder",
    ],
)
def test_cookies_that_a_product_can_not_set(cookie: str) -> None:
    assert answered(("Set-Cookie", cookie), ("set-cookie", "b=2; HttpOnly")) == [("set-cookie", "b=2; HttpOnly")]


@pytest.mark.parametrize(
    "name",
    [
        *("Strict-Transport-Security", "Clear-Site-Data", "Alt-Svc", "NEL", "Report-To", "X-Accel-Redirect", "Server"),
        *("Connection", "Transfer-Encoding", "Keep-Alive", "e2b-traffic-access-token", "X-Cofounder-Key"),
    ],
)
def test_headers_of_a_product_that_reach_beyond_it_do_not_pass(name: str) -> None:
    assert answered((name, "1"), ("ETag", "x")) == [("etag", "x")]


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("https://3000-box.e2b.app/a?b", "http://b1.localhost:8000/a?b"),
        ("http://3000-box.e2b.app", "http://b1.localhost:8000"),
        ("//3000-box.e2b.app/x", "http://b1.localhost:8000/x"),
        ("https://3000-box.e2b.app:8443/a", "https://3000-box.e2b.app:8443/a"),
        ("https://elsewhere.example/a", "https://elsewhere.example/a"),
        ("/next", "/next"),
        ("", ""),
    ],
)
def test_a_redirect_to_the_products_own_host_stays_at_the_preview(sent: str, seen: str) -> None:
    assert answered(("Location", sent)) == [("location", seen)]


def test_our_own_cookie_is_found_among_others() -> None:
    headers = [(b"cookie", b'a="; ours=1'), (b"accept", b"ours=2"), (b"cookie", b"ours=3; Ours=4; ours")]
    assert cookies_named(headers, "ours") == ["1", "3"]
