"""Menus, whose code is loaded when one is first opened."""

import re

import pytest
from playwright.async_api import expect

from tests.harness.console import Console

pytestmark = pytest.mark.web


async def test_a_menu_is_opened_and_left_by_keyboard(console: Console) -> None:
    page = console.page
    button = page.get_by_role("button", name="Account")
    for key in ("Enter", "ArrowDown"):  # the first time it is loaded, the second time it is there
        await button.focus()
        await page.keyboard.press(key)
        await expect(page.get_by_role("menuitem").first).to_be_focused()
        await page.keyboard.press("ArrowDown")
        await expect(page.get_by_role("menuitem").nth(1)).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("menu")).to_have_count(0)
        await expect(button).to_be_focused()


async def test_a_menu_that_can_not_be_loaded_says_so(console: Console) -> None:
    console.expect_error("ERR_FAILED")
    page = console.page
    await page.route(re.compile("/assets/AccountMenu"), lambda route: route.abort())
    await page.get_by_role("button", name="Account").click()
    dialog = page.get_by_role("dialog", name="This part could not be shown.")
    await expect(dialog).to_be_visible()
    await page.unroute_all()
    await dialog.get_by_role("button", name="Reload").click()
    await page.get_by_role("button", name="Account").click()
    await expect(page.get_by_role("menuitem", name="Sign out")).to_be_visible()
