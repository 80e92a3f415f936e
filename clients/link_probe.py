"""Opens links of a product without a browser, to see which ones lead to nothing. Only the product's server is asked."""

import asyncio
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx2

from clients.loopback import with_address
from domain.page_view import origin_of, path_of
from domain.traffic import Upstream

PROBE_SECONDS = 10.0
"""How long the server may take to begin its answer to one request."""

MOST_REDIRECTS = 8

_AT_ONCE = 4
_HEADERS = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
}


@dataclass(frozen=True)
class LinkAnswer:
    """What a link leads to."""

    status: int
    """Of the last answer; 0 if there was none."""
    path: str
    """Where redirects have led to."""
    is_page: bool
    """Whether it is an HTML page of the product."""
    left: bool = False
    """A redirect leads to another server, which was not asked."""


class LinkProbe:
    """Asks for paths of one server, each with GET and without a cookie, a few at a time."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def ask(self, path: str) -> LinkAnswer:
        """Follow a link to its end. Only the heads of answers are read."""
        async with self._turns:
            try:
                async with (
                    asyncio.timeout(PROBE_SECONDS),
                    httpx2.AsyncClient(trust_env=False, follow_redirects=False, timeout=PROBE_SECONDS) as client,
                ):
                    return await self._follow(client, self._upstream.at(path))
            except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError, ValueError):
                return LinkAnswer(0, path, is_page=False)

    async def _follow(self, client: httpx2.AsyncClient, url: str) -> LinkAnswer:
        for _ in range(MOST_REDIRECTS):
            address, host = with_address(url)
            async with client.stream("GET", address, headers=_HEADERS | host | self._upstream.headers(url)) as answer:
                if answer.status_code not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
                    is_page = answer.headers.get("content-type", "").startswith(("text/html", "application/xhtml"))
                    return LinkAnswer(answer.status_code, path_of(url), is_page)
                url = urljoin(url, answer.headers["location"])
            if origin_of(url) != origin_of(self._upstream.url):
                return LinkAnswer(200, path_of(url), is_page=False, left=True)
        return LinkAnswer(0, path_of(url), is_page=False)
