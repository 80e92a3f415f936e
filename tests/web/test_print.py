"""What a page is on paper, without script, and after an update of the server."""

import re
from datetime import UTC, datetime

import pytest
from playwright.async_api import Browser, expect

from clients.browser import close_surely
from domain.events import StatusEvent
from tests.harness.api_server import RunningApi
from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, write_events, write_feed
from tests.web.build_page import box
from tests.web.feed_page import open_feed

pytestmark = pytest.mark.web

_NOTE_PRINTED = """
    window.printed = [];
    addEventListener("afterprint", () => printed.push(document.querySelectorAll("[data-row]").length));
"""
"""Notes how many rows were there while the page was printed, before the page hears of it."""

_COLOURS = "element => { const style = getComputedStyle(element); return [style.color, style.backgroundColor]; }"

BLACK, WHITE = "rgb(0, 0, 0)", "rgb(255, 255, 255)"


async def test_the_story_is_printed_as_a_whole(console: Console) -> None:
    page, sessions = console.page, console.api.sessions
    await page.emulate_media(color_scheme="dark")
    await page.add_init_script(_NOTE_PRINTED)
    build = await build_row(sessions, console.user, goal="A goal of many lines. " * 40)
    await write_feed(sessions, build, feed_lines(1_200))
    last = await write_events(sessions, build, StatusEvent(status="code"))
    feed = await open_feed(console, build, last)
    await feed.scroll_to(0)
    while not (await feed.loaded())[3]:
        await feed.scroll_to(0)
        await feed.settled()
    rows = [row["row"] for row in await feed.whole()]
    assert await feed.rows.count() < len(rows)
    place = await feed.first_visible()

    await page.emulate_media(media="print", color_scheme="dark")
    await expect(feed.rows).to_have_count(len(rows))
    keys = await feed.rows.evaluate_all("rows => rows.map(row => row.dataset.row)")
    assert keys == rows
    tops = await feed.rows.evaluate_all("rows => rows.map(row => row.getBoundingClientRect().top)")
    assert tops == sorted(tops)
    assert len(set(tops)) == len(rows)
    for gone in (
        page.get_by_role("banner"),
        box(page),
        page.get_by_role("tablist"),
        page.get_by_role("searchbox"),
        page.get_by_role("button", name="Wrap up now"),
        page.get_by_role("button", name="To the end"),
        page.get_by_role("separator"),
    ):
        await expect(gone.first).to_be_hidden()
    await expect(page.locator("header h1")).to_be_visible()
    assert await page.locator("html").evaluate(_COLOURS) == [BLACK, WHITE]
    assert (await page.locator("header h1 a").evaluate(_COLOURS))[0] == BLACK
    assert (await page.get_by_text("Turn 1: I look at what is there.").evaluate(_COLOURS))[0] == BLACK
    assert await page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")

    await page.emulate_media(media="screen", color_scheme="dark")
    await expect(feed.rows).not_to_have_count(len(rows))
    await feed.settled()
    assert (await feed.first_visible())[0] == place[0]
    await page.emulate_media(media="null", color_scheme="null")
    paper = await page.pdf()
    assert len(re.findall(rb"/Type /Page\b", paper)) > len(rows) // 60
    assert await page.evaluate("() => printed") == [len(rows)]
    await expect(box(page)).to_be_visible()


async def test_what_is_not_loaded_is_said_on_paper(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user, status="failed", closed_at=datetime.now(UTC))
    last = await write_feed(console.api.sessions, build, feed_lines(6_000))
    feed = await open_feed(console, build, last)
    first, _, _, is_whole = await feed.loaded()
    assert first > 1
    assert not is_whole
    await console.page.emulate_media(media="print")
    said = f"Printed from event {first:,} on."
    await expect(console.page.get_by_text(said)).to_be_visible()
    await console.page.emulate_media(media="screen")
    await expect(console.page.get_by_text(said)).to_have_count(0)
    await feed.stays_at_end()
    assert (await feed.loaded())[0] == first


@pytest.mark.parametrize("path", ["/", "/usage", "/account", "/projects/{project}"])
async def test_other_pages_are_printed_without_what_leads_elsewhere(console: Console, path: str) -> None:
    page = console.page
    build = await build_row(console.api.sessions, console.user)
    project = (await console.api.row(str(build))).project_id
    await page.emulate_media(media="print", color_scheme="dark")
    await console.open(path.format(project=project))
    await expect(page.get_by_role("heading", level=2).first).to_be_visible()
    await expect(page.get_by_role("banner")).to_be_hidden()
    await expect(page.get_by_role("main").get_by_role("button").first).to_be_hidden()
    assert await page.locator("html").evaluate(_COLOURS) == [BLACK, WHITE]
    assert (await page.pdf()).startswith(b"%PDF")


@pytest.mark.parametrize("path", ["/", "/usage", "/builds/1f0c", "/sign-in"])
async def test_without_script_a_page_says_what_to_do(web_api: RunningApi, web_browser: Browser, path: str) -> None:
    context = await web_browser.new_context(java_script_enabled=False)
    try:
        page = await context.new_page()
        await page.goto(f"{web_api.url}{path}")
        said = page.get_by_text(re.compile("needs JavaScript.*Allow it for this address", re.DOTALL))
        await expect(said).to_be_in_viewport()
    finally:
        await close_surely(context)


@pytest.mark.parametrize("gone", ["Usage.*", r"Usage.*[.]js", r"Usage.*[.]css"])
async def test_an_old_page_says_that_the_server_has_a_newer_one(console: Console, gone: str) -> None:
    page = console.page
    console.expect_error("status of 404", "dynamically imported module", "preload CSS")
    await page.route(re.compile(f"/assets/{gone}$"), lambda route: route.fulfill(status=404, body="Not found"))
    await page.get_by_role("navigation", name="Menu").get_by_role("link", name="Usage").click()
    notice = page.get_by_role("main")
    await expect(notice).to_contain_text("A new version of the console is there.")
    await expect(notice).to_contain_text("Reload it to go on.")
    await page.unroute_all()
    await notice.get_by_role("button", name="Reload").click()
    await expect(page.get_by_role("heading", level=1, name="Usage")).to_be_visible()
