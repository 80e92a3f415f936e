"""The Tab key on every page of the console."""

import uuid
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, Console, console_of
from tests.harness.feeds import build_row
from tests.harness.tab_order import wrong_in_tab_order
from tests.web.views import View, empty_panels, founders_pages, make_sample, operators_pages, show

ZOOMED: dict[str, Any] = {"viewport": {"width": 320, "height": 256}}
"""A window of 1280 by 1024 pixels at a zoom of 400 %."""

SIZES = pytest.mark.parametrize("size", [DESKTOP, ZOOMED], ids=["desktop", "zoomed"])


async def _assert_order(console: Console, views: list[View]) -> None:
    await console.page.emulate_media(reduced_motion="reduce")
    found = {}
    for view in views:
        await show(console.page, console.api.url, view)
        if wrong := await wrong_in_tab_order(console.page):
            found[str(view)] = wrong
    assert found == {}


@pytest.mark.web
@SIZES
async def test_founders_reach_each_control_once(
    web_api: RunningApi, web_browser: Browser, size: dict[str, Any]
) -> None:
    async with console_of(web_browser, web_api, f"founder-{uuid.uuid4()}", **size) as console:
        sample = await make_sample(console)
        await _assert_order(console, [*founders_pages(sample), *empty_panels(sample)])


@pytest.mark.web
@SIZES
async def test_operators_reach_each_control_once(
    web_api: RunningApi, web_browser: Browser, size: dict[str, Any]
) -> None:
    user = f"founder-{uuid.uuid4()}"
    build = await build_row(web_api.sessions, user)
    async with console_of(web_browser, web_api, web_api.settings.api_user, is_operator=True, **size) as operator:
        await _assert_order(operator, operators_pages(build, user))
