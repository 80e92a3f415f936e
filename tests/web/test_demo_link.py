"""`make demo` prints a link, and the page that it leads to shows the build while it runs."""

import re
import tempfile
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from clients.browser import close_surely
from tests.harness.console import DESKTOP
from tests.harness.demo import demo

pytestmark = pytest.mark.web


async def test_the_demo_prints_a_link_to_the_page_of_its_build(web_browser: Browser) -> None:
    with tempfile.TemporaryDirectory(prefix="cf-", dir="/tmp") as directory:  # paths of sockets have to be short
        async with demo(Path(directory)) as running:
            await running.until("once, within ten minutes")
            shown = re.search(
                r"watch it +(http://127\.0\.0\.1:\d+)/sign-in#code=(\S+)&to=%2Fbuilds%2F(\S+)", running.text
            )
            assert shown is not None, running.text
            context = await web_browser.new_context(**DESKTOP)
            try:
                page = await context.new_page()
                await page.goto(f"{shown[1]}/sign-in#code={shown[2]}&to=%2Fbuilds%2F{shown[3]}")
                await page.wait_for_url(f"{shown[1]}/builds/{shown[3]}")
                await expect(page.get_by_role("main")).to_be_visible()
                # The build goes on while it is watched, until its feed ends with it.
                await expect(page.locator("[data-live=live], [data-live=ended]")).to_be_visible()
                await expect(page.locator("header [data-status=ready]")).to_be_visible()
            finally:
                await close_surely(context)
            assert await running.end() == 0, running.text
