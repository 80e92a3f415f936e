"""Refuses what a page of another site requests with the cookie of the person who looks at it.

Browsers send `Sec-Fetch-Site` over https and to loopback, and `Origin` with everything that changes something. No page
can forge either. A request with a token in `Authorization` needs no such check: pages of other sites can't send one.
"""

from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers

from api.errors import CROSS_SITE, MEDIA, Problem

_OWN_PAGE = ("same-origin", "none")
"""Values of `Sec-Fetch-Site`: a page of ours, or no page at all, such as the address bar."""

_READS = ("GET", "HEAD")


def host_of(url: str) -> str:
    """The URL's host in lower case, without a port or a dot at the end; empty if there is none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def check_own_page(request: Request, public_url: str) -> None:
    """Check a request that is identified by a cookie, or that is about to get one.

    Args:
        public_url: the origin of our pages, as the settings have it.

    Raises:
        Problem: a page of another site makes it, or nothing shows that none does.
    """
    if not is_of_own_page(request.method, request.headers, public_url):
        raise Problem(
            CROSS_SITE,
            f"This request does not come from a page at {public_url}, so it was refused. Open that address, and do it "
            "there. Programs send a token or an API key in the header `Authorization: Bearer …` instead of a cookie.",
        )
    if request.method not in _READS and has_body(request.headers) and not is_json(request.headers):
        raise Problem(MEDIA, "Send the body as JSON, with the header `Content-Type: application/json`.")


def is_of_own_page(method: str, headers: Headers, public_url: str) -> bool:
    """Whether one of our own pages makes the request, or none does.

    Reading needs no evidence, since browsers send none for it over plain http. A link on any page may lead here.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    is_read = method in _READS
    if is_read and origin is None and _is_followed_link(headers):
        return True
    if origin is not None and origin != public_url:
        return False
    if site is not None:
        return site in _OWN_PAGE
    return origin is not None or is_read


def _is_followed_link(headers: Headers) -> bool:
    """Whether the answer is shown as a page of its own, where the page with the link can't read it."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def has_body(headers: Headers) -> bool:
    """Whether a request has a body."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def is_json(headers: Headers) -> bool:
    """Whether a body is said to be JSON."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))
