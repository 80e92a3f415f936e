"""Products, usage, the account and the fleet by the keyboard alone: there is no mouse in these tests."""

import re
import uuid
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, Console, console_of
from tests.harness.feeds import build_row
from tests.web.views import make_sample, settled

pytestmark = pytest.mark.web

_PRESSES_MOST = 120


async def tab_to(page: Page, control: Locator) -> None:
    """Press Tab until the control has the focus."""
    await expect(control).to_be_visible()
    for _ in range(_PRESSES_MOST):
        await page.keyboard.press("Tab")
        if await control.evaluate("control => control === document.activeElement"):
            return
    raise AssertionError(f"{control} has not got the focus in {_PRESSES_MOST} presses of Tab")


async def press(page: Page, control: Locator, key: str = "Enter") -> None:
    """Go to the control, and press a key there."""
    await tab_to(page, control)
    await page.keyboard.press(key)


@pytest.fixture
async def operator(web_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    async with console_of(web_browser, web_api, web_api.settings.api_user, is_operator=True, **DESKTOP) as signed_in:
        yield signed_in


async def test_a_product_is_rolled_back(console: Console) -> None:
    page = console.page
    sample = await make_sample(console)
    await console.open(f"/projects/{sample.project}")
    await settled(page)
    versions = page.get_by_role("region", name="Versions").get_by_role("listitem")
    await press(page, versions.last.get_by_role("button", name="Start a new build from here"))
    await expect(page.get_by_text("This goes back to version 1.")).to_be_visible()
    await expect(page.get_by_label("Goal")).to_be_focused()
    await page.keyboard.type("Do it otherwise.")
    await press(page, page.get_by_role("button", name="Start the build"))
    await page.wait_for_url(re.compile("/builds/"))
    answer = await console.api.http.get(f"/v1/projects/{sample.project}/builds", headers=console.headers)
    newest = answer.json()["builds"][0]
    assert (newest["goal"], newest["started_from"]["version"]) == ("Do it otherwise.", 1)


async def test_other_days_of_the_usage_are_shown(console: Console) -> None:
    page = console.page
    await make_sample(console)
    await console.open("/usage")
    await expect(page.get_by_text("Tokens of each UTC day and model")).to_be_visible()
    await press(page, page.get_by_text("Why builds sleep"))
    await expect(page.get_by_text("A plan has an allowance of money for each UTC day.")).to_be_visible()
    await tab_to(page, page.get_by_label("From"))
    await page.keyboard.type("01012026")
    await press(page, page.get_by_role("button", name="Show"))
    await expect(page.get_by_label("From")).to_have_value("2026-01-01")
    await expect(page.get_by_role("alert")).to_have_count(0)
    asked = [request.url for request in console.requests if "/v1/usage?" in request.url]
    assert any("from=2026-01-01" in url for url in asked)
    async with page.expect_download():
        await press(page, page.get_by_role("button", name="Download as CSV"))


async def test_a_key_is_made_and_revoked(console: Console) -> None:
    page = console.page
    await console.open("/account")
    keys = page.get_by_role("region", name="API keys")
    make = keys.get_by_role("button", name="Make a key")
    await press(page, make)
    dialog = page.get_by_role("dialog", name="Make a key")
    await tab_to(page, dialog.get_by_label("Name", exact=True))
    await page.keyboard.type("nightly")
    await press(page, dialog.get_by_label("Start, steer and stop builds"), "Space")
    await press(page, dialog.get_by_role("button", name="Make the key"))
    shown = page.get_by_role("dialog", name="The new key")
    await press(page, shown.get_by_role("button", name="I have stored it"))
    await expect(keys.get_by_text("nightly")).to_be_visible()

    revoke = keys.get_by_role("button", name="Revoke: nightly")
    await press(page, revoke)
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(revoke).to_be_focused()
    await page.keyboard.press("Enter")
    await press(page, page.get_by_role("dialog").get_by_role("button", name="Revoke"))
    await expect(keys.get_by_text("nightly")).to_have_count(0)
    answer = await console.api.http.get("/v1/keys", headers=console.headers)
    assert "nightly" not in [key["name"] for key in answer.json()["keys"]]


async def test_builds_of_the_fleet_are_filtered_selected_and_opened(operator: Console) -> None:
    page, user = operator.page, f"sleeper-{uuid.uuid4()}"
    builds = [await build_row(operator.api.sessions, user, status="sleeping") for _ in range(2)]
    await operator.open("/fleet")
    rows = page.get_by_role("table", name="Builds of all users").locator("tbody").get_by_role("row")
    await expect(rows.first).to_be_visible()
    await tab_to(page, page.get_by_label("User", exact=True))
    await page.keyboard.type(user)
    await expect(page.get_by_text("2 builds match.")).to_be_visible()
    await expect(rows).to_have_count(2)
    await press(page, rows.first.get_by_role("checkbox"), "Space")
    await expect(page.get_by_text("1 build selected")).to_be_visible()
    wake = page.get_by_role("button", name="Wake", exact=True)
    await press(page, wake)
    await expect(page.get_by_role("dialog", name="Wake builds").get_by_label("Reason")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(wake).to_be_focused()
    await press(page, rows.first.get_by_role("link", name=re.compile("Plot")).first)
    await page.wait_for_url(re.compile("/fleet/builds/(" + "|".join(map(str, builds)) + ")$"))
    await expect(page.get_by_role("region", name="Ledger")).to_be_visible()


async def test_a_dialog_of_a_menu_gives_the_focus_back(console: Console) -> None:
    page = console.page
    build = await build_row(console.api.sessions, console.user)
    await console.open(f"/builds/{build}")
    menu = page.get_by_role("button", name="Actions of this build")
    await press(page, menu)
    await expect(page.get_by_role("menuitem").first).to_be_focused()
    await page.keyboard.press("End")
    await expect(page.get_by_role("menuitem", name="Keys")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(menu).to_be_focused()
