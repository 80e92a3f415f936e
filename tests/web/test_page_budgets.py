"""How much each page may load before it is there, and how far its content may move meanwhile.

How fast that is depends on the machine: `python -m bench.web`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from clients.browser import close_surely
from db.models import Build
from db.transaction import transaction
from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, PHONE, Console, console_of
from tests.harness.feeds import build_row, feed_lines, write_feed
from tests.harness.page_files import page_files
from tests.web.feed_page import FeedOnPage

FIRST_PAGE_SCRIPTS = 120_000
"""Bytes, compressed: the page that everyone opens first, with what every other page uses too."""

SCRIPTS = 150_000
"""Bytes, compressed, of any page."""

STYLES = 15_000
"""Bytes, compressed, of any page."""

REQUESTS = 12
"""The page, its icon, scripts and styles; answers of the API are not among them."""


SHIFT_MOST = 0.05
"""How far content may move while a page loads, as browsers measure it (CLS)."""

_WATCH_SHIFTS = """
window.shifts = [];
const note = entry => entry.hadRecentInput || shifts.push([
    entry.value, ...entry.sources.map(({ node }) => node?.textContent?.slice(0, 40) ?? ""),
]);
new PerformanceObserver(list => list.getEntries().forEach(note)).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture
async def console(web_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    """An operator's browser, which may open every page."""
    user = web_api.settings.api_user
    async with console_of(web_browser, web_api, user, is_operator=True, **DESKTOP) as signed_in:
        yield signed_in


_WAIT_FOR_ALL = """
addEventListener("DOMContentLoaded", () =>
    document.documentElement.style.setProperty("--in-order-patience", "1000s"))
"""
"""Parts of the page wait for those above them however slow the machine is."""


async def assert_within_budget(console: Console, scripts: int = SCRIPTS) -> None:
    files = await page_files(console.page, console.api.url)
    assert 0 < files.scripts <= scripts, files
    assert 0 < files.styles <= STYLES, files
    assert files.requests <= REQUESTS, files


async def build_and_project(console: Console) -> tuple[uuid.UUID, uuid.UUID]:
    """A build with a feed, and its project."""
    build = await build_row(console.api.sessions, console.user)
    await write_feed(console.api.sessions, build, feed_lines(200))
    async with transaction(console.api.sessions) as tx:
        return build, (await tx.session.get_one(Build, build)).project_id


async def assert_nothing_moves(console: Console, path: str) -> None:
    """Open the page with slow answers, the first of them last: what is above comes after what is below."""
    asked = 0

    async def answer_late(route: Route) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(max(0.3, 1.2 - 0.12 * asked))
        await route.continue_()

    page = await console.context.new_page()
    await page.add_init_script(_WATCH_SHIFTS)
    await page.add_init_script(_WAIT_FOR_ALL)
    await page.route("**/v1/**", answer_late)
    await page.goto(f"{console.api.url}{path}")
    await expect(page.locator("h1").first).to_be_attached()
    await expect(page.locator("[data-loading]")).to_have_count(0)
    await page_files(page, console.api.url)
    shifts = await page.evaluate("() => shifts")
    await page.unroute_all(behavior="ignoreErrors")
    await close_surely(page)
    assert asked > 0
    assert sum(value for value, *_ in shifts) <= SHIFT_MOST, f"{path}: {shifts}"


async def test_the_first_page_and_a_builds_page_load_little(console: Console) -> None:
    await console.open("/")
    await expect(console.page.get_by_role("button", name="Account")).to_be_visible()
    await assert_within_budget(console, FIRST_PAGE_SCRIPTS)

    build = await build_row(console.api.sessions, console.user)
    last = await write_feed(console.api.sessions, build, feed_lines(200))
    await console.open(f"/builds/{build}")
    await FeedOnPage(console.page).has(last)
    await assert_within_budget(console)


@pytest.mark.web
async def test_every_other_page_loads_little(console: Console) -> None:
    _, project = await build_and_project(console)
    for path in ("/new", "/usage", "/account", f"/projects/{project}", f"/projects/{project}/edit", "/fleet"):
        await console.open(path)
        await expect(console.page.locator("main h1")).to_be_visible()
        await assert_within_budget(console)


async def test_a_product_does_not_move_while_it_loads(console: Console) -> None:
    _, project = await build_and_project(console)
    await assert_nothing_moves(console, f"/projects/{project}")


@pytest.mark.web
async def test_an_answer_that_does_not_come_hides_nothing_else(console: Console) -> None:
    stuck = asyncio.Event()
    console.expect_error("ERR_FAILED")  # at the end, unless the page has let the request go first

    async def hold(route: Route) -> None:
        await stuck.wait()
        await route.abort()

    await console.page.route("**/v1/account", hold)
    await console.open("/account")
    await expect(console.page.get_by_role("heading", name="Keys")).to_be_visible()
    stuck.set()
    await console.page.unroute_all(behavior="ignoreErrors")


@pytest.mark.web
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_no_page_moves_while_it_loads(web_api: RunningApi, web_browser: Browser, device: dict[str, Any]) -> None:
    user = web_api.settings.api_user
    async with console_of(web_browser, web_api, user, is_operator=True, **device) as console:
        build, project = await build_and_project(console)
        founder = ("/", "/new", "/usage", "/account", f"/builds/{build}", f"/projects/{project}")
        fleet = ("/fleet", "/fleet/stuck", "/fleet/spend", "/fleet/controls", f"/fleet/builds/{build}")
        for path in (*founder, f"/projects/{project}/edit", *fleet, f"/fleet/users/{user}"):
            await assert_nothing_moves(console, path)
