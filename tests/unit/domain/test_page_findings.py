"""What is held against a page, and what is not because only the gate's browser can't reach it."""

from typing import Any

import pytest

from domain.findings import FindingKind
from domain.page_findings import console_faults, page_findings, pages_failed, request_faults
from domain.page_view import DeadLink, FailedRequest, PageView

GOOD: dict[str, Any] = {
    "path": "/",
    "viewport": "desktop",
    "http_status": 200,
    "title": "Rooms",
    "text": "Rooms",
    "console_errors": (),
    "failed_requests": (),
    "broken_images": (),
    "overflow_px": 0,
    "webp": b"",
    "width": 1280,
    "height": 800,
}


def view(**changes: Any) -> PageView:
    return PageView(**(GOOD | changes))


def blocked(kind: str) -> FailedRequest:
    return FailedRequest("https://elsewhere.example/x", kind, "net::ERR_TUNNEL_CONNECTION_FAILED")


def test_a_good_page_has_no_finding() -> None:
    assert page_findings([view(), view(viewport="mobile")]) == []
    assert page_findings([]) == []
    assert pages_failed([]) == []


def test_a_page_that_a_browser_does_not_get_is_the_only_finding() -> None:
    [finding] = page_findings([view(http_status=500, text="Internal Server Error", console_errors=("boom",))])
    assert finding.kind is FindingKind.BAD_STATUS
    assert "Internal Server Error" in finding.evidence
    assert "boom" in finding.evidence


def test_each_kind_is_one_finding_that_lists_where() -> None:
    faults: dict[str, Any] = {
        "console_errors": ("Uncaught Error: a",),
        "failed_requests": (FailedRequest("/lost.js", "script", "status 404", 404),),
        "broken_images": ("/lost.png",),
        "dead_links": (DeadLink("/gone", "Gone", "status 404"),),
    }
    pages = [
        view(**faults),
        view(viewport="mobile", overflow_px=40, overflow_cause="table, 430 px wide", **faults),
        view(path="/b", console_errors=("Uncaught Error: b",)),
    ]
    findings = page_findings(pages)
    assert [finding.kind.value for finding in findings] == [
        "console_error",
        "failed_request",
        "broken_image",
        "dead_link",
        "phone_overflow",
    ]
    assert findings[0].evidence == "- / (desktop, mobile): Uncaught Error: a\n- /b (desktop): Uncaught Error: b"
    assert findings[3].evidence == "- / (desktop, mobile): /gone ('Gone'): status 404"
    assert findings[4].evidence == "- / (mobile): 40 px wider than the screen: table, 430 px wide"
    assert all(finding.remedy for finding in findings)


def test_a_long_list_is_cut() -> None:
    [finding] = page_findings([view(broken_images=tuple(f"/{number}.png" for number in range(20)))])
    assert finding.evidence.endswith("and 12 more")


@pytest.mark.parametrize(
    ("error", "failed", "counts"),
    [
        ("Uncaught ReferenceError: Vue is not defined", (), True),
        ("Uncaught ReferenceError: Vue is not defined", (blocked("script"),), False),
        ("Uncaught ReferenceError: Vue is not defined", (blocked("font"),), True),
        ("no weather TypeError: Failed to fetch", (blocked("fetch"),), False),
        ("Uncaught Error: no rooms", (blocked("fetch"), blocked("script")), True),
        ("Loading https://elsewhere.example/x failed", (blocked("font"),), False),
        ("Refused to load https://third.example/x: content security policy", (blocked("font"),), True),
        ("WebSocket connection to 'wss://third.example/' failed", (), False),
        ("WebSocket connection to 'ws://localhost:3001/' failed", (), True),
        ("Warning: Each child in a list should have a unique key", (), False),
    ],
)
def test_what_the_console_says(error: str, failed: tuple[FailedRequest, ...], counts: bool) -> None:
    assert bool(console_faults(view(console_errors=(error,), failed_requests=failed))) is counts


@pytest.mark.parametrize(
    ("request_", "counts"),
    [
        (FailedRequest("/a.js", "script", "status 404", 404), True),
        (FailedRequest("/a.js", "script", "status 401", 401), False),
        (FailedRequest("/api/me", "fetch", "status 404", 404), False),
        (FailedRequest("/api/me", "fetch", "status 401", 401), False),
        (FailedRequest("/api/me", "fetch", "status 500", 500), True),
        (FailedRequest("/api/me", "fetch", "net::ERR_EMPTY_RESPONSE"), True),
        (FailedRequest("/site.webmanifest", "manifest", "status 404", 404), False),
        (FailedRequest("http://localhost:3001/api", "fetch", "net::ERR_FAILED"), True),
        (FailedRequest("http://127.0.0.1/api", "fetch", "status 403", 403), True),
        (FailedRequest("https://fonts.example/css", "stylesheet", "net::ERR_TUNNEL_CONNECTION_FAILED"), False),
    ],
)
def test_what_requests_count(request_: FailedRequest, counts: bool) -> None:
    assert bool(request_faults(view(failed_requests=(request_,)))) is counts
