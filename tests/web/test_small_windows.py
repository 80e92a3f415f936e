"""Every page in small windows: phones, tablets, and a zoom of 400 % scroll in one direction only."""

import uuid
from dataclasses import replace
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, Console, console_of
from tests.harness.feeds import build_row
from tests.web.views import (
    View,
    empty_panels,
    founders_dialogs,
    founders_pages,
    make_sample,
    operators_dialogs,
    operators_pages,
    settled,
    show,
)

TABLET_WIDTH = 820

WINDOWS = ((320, 256), (360, 640), (TABLET_WIDTH, 1180))
"""Width and height in CSS pixels. The first is a window of 1280 by 1024 pixels at a zoom of 400 %."""

OPEN_DRAWER = ("button", "Show preview and files")
"""On a tablet, the tabs of a build are in a drawer."""

_WIDER = """
async () => {
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const wider = [];
    if (document.scrollingElement.scrollWidth > innerWidth) wider.push("the page");
    // Lines of text files, pictures and tables need both directions; rows of tabs and of phases have one line.
    const may = "pre, code, table, [role=group], [role=tablist], [role=tabpanel] [role=group]";
    for (const element of document.querySelectorAll("body *")) {
        const { overflowX } = getComputedStyle(element);
        if (!/auto|scroll/.test(overflowX) || element.scrollWidth <= element.clientWidth + 1) continue;
        if (element.clientHeight === 0 || element.matches(`${may}, ol, textarea, input`)) continue;
        if (!element.checkVisibility()) continue;
        wider.push(`${element.outerHTML.slice(0, 120)} ${element.scrollWidth} > ${element.clientWidth}`);
    }
    return wider;
}
"""


async def _assert_one_direction(console: Console, views: list[View]) -> None:
    page = console.page
    found: dict[str, Any] = {}
    for view in views:
        for width, height in WINDOWS:
            await page.set_viewport_size({"width": width, "height": height})
            is_drawer = width == TABLET_WIDTH and "?tab=" in view.path
            if is_drawer or view.clicks or (width, height) == WINDOWS[0]:
                opened = replace(view, phone_clicks=(OPEN_DRAWER, *view.clicks)) if is_drawer else view
                await show(page, console.api.url, opened, is_phone=True)
            await settled(page)
            if wider := await _wider(page):
                found[f"{view} at {width}x{height}"] = wider
    assert found == {}


async def _wider(page: Page) -> list[str]:
    wider: list[str] = await page.evaluate(_WIDER)
    return wider


@pytest.mark.web
async def test_founders_pages_scroll_in_one_direction(web_api: RunningApi, web_browser: Browser) -> None:
    async with console_of(web_browser, web_api, f"founder-{uuid.uuid4()}", **DESKTOP) as console:
        sample = await make_sample(console)
        views = [*founders_pages(sample), *empty_panels(sample), *founders_dialogs(sample)]
        await _assert_one_direction(console, views)


@pytest.mark.web
async def test_operators_pages_scroll_in_one_direction(web_api: RunningApi, web_browser: Browser) -> None:
    user = f"founder-{uuid.uuid4()}"
    build = await build_row(web_api.sessions, user)
    async with console_of(web_browser, web_api, web_api.settings.api_user, is_operator=True, **DESKTOP) as operator:
        await _assert_one_direction(operator, [*operators_pages(build, user), *operators_dialogs(build, user)])
