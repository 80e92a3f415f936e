"""The web console in Chromium: pages that a real link has signed in, and what must be true of every page."""

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, async_playwright

from clients.browser import close_surely, find_chromium
from domain.identity import Scope
from domain.preview_address import build_of_host
from tests.harness.api_server import AS_OPERATOR, RunningApi, as_user
from tests.harness.wait import DEADLINE

DESKTOP: Mapping[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PHONE: Mapping[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "has_touch": True,
    "is_mobile": True,
    "device_scale_factor": 2,
}


@dataclass
class Console:
    """A browser of one user, with a page of the console.

    Tests need no cleanup and no assertions of their own for what `assert_clean` says: the fixtures call it.
    """

    api: RunningApi
    user: str
    context: BrowserContext
    page: Page
    errors: list[str] = field(default_factory=list)
    """What the browser's console says is wrong, in all tabs."""
    requests: list[Request] = field(default_factory=list)
    """All requests of all tabs."""
    expected: list[str] = field(default_factory=list)
    """Regular expressions of errors that the test brings about itself; see `expect_error`."""
    is_operator: bool = False
    """Whether the links that sign it in are an operator's."""

    @property
    def headers(self) -> dict[str, str]:
        """Headers with which a test calls the API as this user: `api.http.get(path, headers=console.headers)`."""
        return AS_OPERATOR if self.is_operator else as_user(self.user)

    async def open(self, path: str) -> None:
        """Load a page of the console by its address, as from a bookmark."""
        await self.page.goto(f"{self.api.url}{path}")

    async def new_tab(self, path: str = "/") -> Page:
        """Open another tab of the same browser."""
        page = await self.context.new_page()
        await page.goto(f"{self.api.url}{path}")
        return page

    async def sign_in_link(self, to: str = "/") -> str:
        """Make a link that signs a browser in as this user, as `cofounder open` does."""
        body = {"scopes": [str(scope) for scope in Scope]} if self.is_operator else {}
        made = await self.api.http.post("/v1/sign-in-links", json=body, headers=self.headers)
        assert made.status_code == 201, made.text
        fragment = str(made.json()["url"]).partition("#")[2]
        return f"{self.api.url}/sign-in#{fragment}&to={quote(to, safe='')}"

    async def sign_in(self, to: str = "/") -> None:
        """Sign the browser in with a link, and wait until it is at the address."""
        await self.page.goto(await self.sign_in_link(to))
        await self.page.wait_for_url(f"{self.api.url}{to}")

    def expect_error(self, *patterns: str) -> None:
        """Take errors that match a regular expression for what the test wants, such as `"status of 409"`."""
        self.expected += patterns

    def assert_clean(self) -> None:
        """Nothing went wrong in the browser's console, no policy was violated, and nothing but our own origin and
        previews was asked for anything."""
        unexpected = [error for error in self.errors if not any(re.search(each, error) for each in self.expected)]
        assert unexpected == [], "\n".join(unexpected)
        foreign = {request.url for request in self.requests if not self._is_own(request.url)}
        assert foreign == set(), foreign

    def _is_own(self, url: str) -> bool:
        parts = urlsplit(url)
        if parts.scheme in ("about", "blob", "data"):
            return True
        is_preview = build_of_host(self.api.settings.preview_url, parts.hostname or "") is not None
        return is_preview or f"{parts.scheme}://{parts.netloc}" == self.api.url

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" or "Content Security Policy" in message.text:
            self.errors.append(f"{message.text} ({message.location['url']})")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run a Chromium that can open previews, whatever proxy this machine has."""
    arguments = ["--no-proxy-server", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(None), args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def console_of(
    browser: Browser, api: RunningApi, user: str, *, is_operator: bool = False, **options: Any
) -> AsyncIterator[Console]:
    """A browser of its own for the user, signed in, at the console's first page. It has to be clean at the end.

    Args:
        is_operator: sign in with the operators' token. The user has to be that of the API's settings.
    """
    context = await browser.new_context(**options)
    context.set_default_timeout(DEADLINE * 1000)
    try:
        console = Console(api, user, context, await context.new_page(), is_operator=is_operator)
        context.on("console", console._note)
        context.on("weberror", lambda failed: console.errors.append(str(failed.error)))
        context.on("request", lambda request: console.requests.append(request))
        await console.sign_in()
        yield console
        console.assert_clean()
    finally:
        await close_surely(context)
