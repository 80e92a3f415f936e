"""What the gate holds against the pages of a product, from what a browser saw of them.

A browser of the gate reaches the product only. What fails because of that, and would not fail for a visitor, is not a
finding.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from domain.findings import Finding, FindingKind
from domain.page_view import MOBILE, FailedRequest, PageView
from domain.untouched_templates import template_of

OCCURRENCES = 8
"""Lines of evidence that one finding lists."""

TEXT_QUOTED = 400
"""Characters of a page's visible text that a finding quotes."""

OVERFLOW_PX = 3
"""A page may be wider than the phone by less than this: rounding, and nothing that a visitor could notice."""

NO_FAULT = (401, 402, 403, 407, 429, 451)
"""Statuses that say that a visitor may not, not that something is missing."""

_CONTENT = {"script", "stylesheet", "image", "font", "media", "document"}
"""What a page needs to be shown as it was made. What a script asks for may be missing on purpose."""

_CONNECTS = {"fetch", "xhr", "eventsource"}
_NO_SERVER = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_CLOSED")
_VISITORS_OWN = re.compile(r"localhost|127(\.\d+){3}|0\.0\.0\.0|::1")
_URL = re.compile(r"(?:https?|wss?)://[^\s'\"<>)]+", re.IGNORECASE)
_WITHOUT_A_SCRIPT = re.compile(
    r"is not defined|cannot read propert|is not a (?:function|constructor)|undefined|module specifier|"
    r"dynamically imported module|failed to fetch",
    re.IGNORECASE,
)
"""What scripts complain about if another one did not load."""
_WITHOUT_AN_ANSWER = re.compile(r"fetch|network|load failed|timed? ?out|\b403\b|\berr_|connect|cors", re.IGNORECASE)
"""What scripts complain about if a request did not succeed."""
_REPEATS_A_REQUEST = re.compile(r"^Access to .* has been blocked by CORS policy")
"""The same as a failed request to another server."""
_DEVELOPMENT_ADVICE = re.compile(r"^(?:Warning: |\[Vue warn\]|Each child in a list should have a unique)")
"""What libraries tell their developers. No visitor notices it."""


def page_findings(views: Sequence[PageView]) -> list[Finding]:
    """Return what is wrong with the pages that were seen. The first page comes first, in every viewport."""
    if not views:
        return []
    first = [view for view in views if view.path == views[0].path]
    if bad := _status(first):
        return [bad]
    checks = (_template(first), _console(views), _requests(views), _images(views), _links(views), _overflow(views))
    return [finding for finding in checks if finding is not None]


def pages_failed(problems: Sequence[str]) -> list[Finding]:
    """The findings about linked pages that a browser could not show, or that are blank."""
    if not problems:
        return []
    return [
        Finding(
            FindingKind.PAGE_FAILED,
            "Pages that the first page links to could not be shown in a browser.",
            _listed(problems),
            "Let each of these pages load and show content, and look at it with look.",
        )
    ]


def _status(first: Sequence[PageView]) -> Finding | None:
    wrong = [view for view in first if view.http_status != 200]
    if not wrong:
        return None
    view = wrong[0]
    shown = f"The page shows:\n{view.text[:TEXT_QUOTED]}" if view.text.strip() else "The page shows no text."
    return Finding(
        FindingKind.BAD_STATUS,
        f"A browser that opened / got status {view.http_status}, not 200 ({_viewports(wrong)}), although a plain "
        "request was answered with 200.",
        f"{shown}\n{_listed(view.console_errors)}".strip(),
        "Answer 200 with the product's page also to a browser, which sends `Accept: text/html,…`; look at / with look.",
    )


def _template(first: Sequence[PageView]) -> Finding | None:
    for view in first:
        if name := template_of(view.title, view.text):
            return Finding(
                FindingKind.TEMPLATE,
                f"The first page is still that of {name}, not one of the product.",
                f"Its title is {view.title[:100]!r}. It shows:\n{view.text[:TEXT_QUOTED]}",
                "Replace it with a page that shows what the product is and lets a visitor use it, and remove what is "
                "left of the template.",
            )
    return None


def _console(views: Sequence[PageView]) -> Finding | None:
    return _by_page(
        FindingKind.CONSOLE_ERROR,
        views,
        console_faults,
        "Scripts of the product's pages fail in a browser.",
        "Fix the cause of each error. Then `look` at these pages: it shows their console errors.",
    )


def _requests(views: Sequence[PageView]) -> Finding | None:
    return _by_page(
        FindingKind.FAILED_REQUEST,
        views,
        lambda view: [_say(request) for request in request_faults(view)],
        "The product's pages ask for things that they do not get.",
        "Serve each of these, or do not ask for it. A visitor's browser reaches the product's server under its public "
        "address only, so use paths such as /api/items and never localhost. Then `look` at these pages.",
    )


def _images(views: Sequence[PageView]) -> Finding | None:
    return _by_page(
        FindingKind.BROKEN_IMAGE,
        views,
        lambda view: view.broken_images,
        "Images on the product's pages are broken.",
        "Commit each image under the path that the page uses, in a format that browsers draw, or take it off the page.",
    )


def _links(views: Sequence[PageView]) -> Finding | None:
    return _by_page(
        FindingKind.DEAD_LINK,
        views,
        lambda view: [
            f"{link.path}{f' ({link.text!r})' if link.text else ''}: {link.reason}" for link in view.dead_links
        ],
        "Links on the product's pages lead nowhere.",
        "Let each of these addresses answer with its page, also when it is opened directly, or take the link away.",
    )


def _overflow(views: Sequence[PageView]) -> Finding | None:
    def too_wide(view: PageView) -> list[str]:
        if view.viewport != MOBILE.name or view.overflow_px < OVERFLOW_PX:
            return []
        cause = f": {view.overflow_cause}" if view.overflow_cause else ""
        return [f"{view.overflow_px} px wider than the screen{cause}"]

    return _by_page(
        FindingKind.PHONE_OVERFLOW,
        views,
        too_wide,
        f"Pages are wider than a phone ({MOBILE.width} px) and scroll horizontally.",
        f'Let each page fit {MOBILE.width} px: a viewport declaration (`<meta name="viewport" '
        'content="width=device-width, initial-scale=1">`), widths that shrink, tables and code that scroll inside '
        "their own box. Then `look` at these pages with the viewport mobile.",
    )


def console_faults(view: PageView) -> list[str]:
    """The console errors of a page that a visitor's browser would have, too."""
    blocked = [request for request in view.failed_requests if _is_blocked(request)]
    hosts = {urlsplit(request.address).hostname for request in blocked}
    kinds = {request.kind for request in blocked}

    def is_ours(error: str) -> bool:
        if _DEVELOPMENT_ADVICE.match(error) or _REPEATS_A_REQUEST.match(error):
            return False
        for url in _URL.findall(error):
            host = _host(url)
            if host in hosts or (url.lower().startswith("ws") and not _VISITORS_OWN.fullmatch(host)):
                return False
        if "script" in kinds and _WITHOUT_A_SCRIPT.search(error):
            return False
        return not (kinds & _CONNECTS and _WITHOUT_AN_ANSWER.search(error))

    return [error for error in view.console_errors if is_ours(error)]


def request_faults(view: PageView) -> list[FailedRequest]:
    """The failed requests of a page that would fail for a visitor, too. Broken images are told apart."""
    return [
        request
        for request in view.failed_requests
        if _is_fault(request) and not (request.kind == "image" and request.address in view.broken_images)
    ]


def _is_fault(request: FailedRequest) -> bool:
    if request.is_elsewhere:
        return bool(_VISITORS_OWN.fullmatch(_host(request.address)))
    if request.status >= 500:
        return True
    if request.kind in _CONTENT:
        return request.status not in NO_FAULT
    return request.kind in _CONNECTS and any(error in request.reason for error in _NO_SERVER)


def _is_blocked(request: FailedRequest) -> bool:
    return request.is_elsewhere and not _VISITORS_OWN.fullmatch(_host(request.address))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _say(request: FailedRequest) -> str:
    hint = " (on a visitor's machine, localhost is that machine)" if request.is_elsewhere else ""
    return f"{request.kind} {request.address}: {request.reason}{hint}"


def _by_page(
    kind: FindingKind,
    views: Sequence[PageView],
    faults_of: Callable[[PageView], Iterable[str]],
    cause: str,
    remedy: str,
) -> Finding | None:
    """One finding about a kind of fault, which lists each fault with its page and viewports; None if there is none."""
    seen: dict[tuple[str, str], list[PageView]] = {}
    for view in views:
        for fault in faults_of(view):
            seen.setdefault((view.path, fault), []).append(view)
    if not seen:
        return None
    return Finding(
        kind,
        cause,
        _listed([f"{path} ({_viewports(where)}): {fault}" for (path, fault), where in seen.items()]),
        remedy,
    )


def _viewports(views: Sequence[PageView]) -> str:
    return ", ".join(dict.fromkeys(view.viewport for view in views))


def _listed(lines: Sequence[str]) -> str:
    more = f"\nand {len(lines) - OCCURRENCES} more" if len(lines) > OCCURRENCES else ""
    return "\n".join(f"- {line}" for line in lines[:OCCURRENCES]) + more
