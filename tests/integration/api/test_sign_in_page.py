"""The pages for signing in, in Chromium: what they show, and that the code stays out of addresses and requests."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, Request, async_playwright, expect

from clients.browser import find_chromium
from local.stack import LocalStack
from tests.harness.api_server import RunningApi, new_database, running_api, settings_for
from tests.harness.wait import DEADLINE


@pytest.fixture
async def api(stack: LocalStack, tmp_path: Path) -> AsyncIterator[RunningApi]:
    """An API whose console is a title: tests/web has the real one."""
    (tmp_path / "index.html").write_text("<!doctype html><html lang=en><h1>The console</h1>")
    settings = settings_for(await new_database(stack), web_dist=str(tmp_path))
    async with running_api(settings, stack.environment) as running:
        yield running


class Visitor:
    """A page in a browser of its own, with its requests and what went wrong."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[Request] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if "Policy" in message.text else None)

    async def opens(self, url: str, title: str) -> None:
        """Open an address, and wait for this title."""
        await self.page.goto("about:blank")
        await self.page.goto(url)
        await self.shows(title)

    async def shows(self, title: str) -> None:
        """Wait for this title."""
        await expect(self.page.locator("h1")).to_have_text(title, timeout=DEADLINE * 1000)

    async def says(self, text: str) -> None:
        """Wait until the page shows this text."""
        await expect(self.page.locator("main")).to_contain_text(text, timeout=DEADLINE * 1000)


@asynccontextmanager
async def chromium() -> AsyncIterator[BrowserContext]:
    """A browser without cookies."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(None), args=arguments)
        try:
            yield await browser.new_context(viewport={"width": 900, "height": 600})
        finally:
            await browser.close()


async def _link(api: RunningApi, build: str | None = None) -> str:
    made = await api.http.post("/v1/sign-in-links", json={})
    assert made.status_code == 201, made.text
    return str(made.json()["url"]) + ("" if build is None else f"&to=%2Fbuilds%2F{build}")


async def test_a_link_in_a_browser(api: RunningApi) -> None:
    build = await api.build()
    async with chromium() as context:
        visitor = Visitor(await context.new_page())
        await visitor.opens(f"{api.url}/sign-in", "Sign in")
        await visitor.says("cofounder open")

        link = await _link(api)
        code = link.partition("#code=")[2]
        await visitor.opens(link, "The console")
        assert visitor.page.url == f"{api.url}/"
        assert await visitor.page.evaluate("document.cookie") == ""
        history = await visitor.page.evaluate("history.length")

        # A second time: nothing is lost, and the page says so.
        await visitor.opens(link, "You are signed in")
        await visitor.says("does not work any more, but this browser is signed in as founder")
        assert code not in visitor.page.url
        assert history < 50
        await visitor.opens(await _link(api, build), "The console")
        assert visitor.page.url == f"{api.url}/builds/{build}"
        await visitor.opens(f"{await _link(api)}&to=https%3A%2F%2Fevil.example%2F", "The console")
        assert visitor.page.url == f"{api.url}/"
        await visitor.opens(f"{await _link(api)}&to=%2F%2Fevil.example", "The console")
        assert visitor.page.url == f"{api.url}/"

        await visitor.page.evaluate("fetch('/v1/sign-ins/current', {method: 'DELETE'})")
        assert await context.cookies() == []
        await visitor.opens(link, "This link was used before")
        await visitor.says("cofounder open")
        await visitor.opens(link[:-3], "This link does not work")

        assert visitor.errors == []
        with_code = [each for each in visitor.requests if code in each.url or code in str(each.headers)]
        # Playwright names the page's address with its fragment; what is sent has none.
        assert {each.url.partition("#")[0] for each in with_code} <= {f"{api.url}/sign-in"}
        assert {each.url.split("/")[2] for each in visitor.requests if each.url != "about:blank"} == {
            api.url.removeprefix("http://")
        }


async def test_the_page_is_closed_to_others(api: RunningApi) -> None:
    answer = await api.http.get("/sign-in")
    policy = answer.headers["Content-Security-Policy"]
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert "default-src 'none'; script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "<script>" not in answer.text
    assert "style=" not in answer.text
    for name in ("nothing.js", "..%2Fapp.py", "sign_in.html"):
        assert (await api.http.get(f"/pages/{name}")).status_code == 404
