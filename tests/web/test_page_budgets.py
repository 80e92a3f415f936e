"""How much each page may load before it is there. How fast that is depends on the machine: `python -m bench.web`."""

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, expect

from db.models import Build
from db.transaction import transaction
from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, Console, console_of
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


@pytest.fixture
async def console(web_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    """An operator's browser, which may open every page."""
    user = web_api.settings.api_user
    async with console_of(web_browser, web_api, user, is_operator=True, **DESKTOP) as signed_in:
        yield signed_in


async def assert_within_budget(console: Console, scripts: int = SCRIPTS) -> None:
    files = await page_files(console.page, console.api.url)
    assert 0 < files.scripts <= scripts, files
    assert 0 < files.styles <= STYLES, files
    assert files.requests <= REQUESTS, files


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
    build = await build_row(console.api.sessions, console.user)
    async with transaction(console.api.sessions) as tx:
        row = await tx.session.get_one(Build, build)
        project = row.project_id
    for path in ("/new", "/usage", "/account", f"/projects/{project}", f"/projects/{project}/edit", "/fleet"):
        await console.open(path)
        await expect(console.page.locator("main h1")).to_be_visible()
        await assert_within_budget(console)
