"""The operators' pages: all builds by a filter, and acts on many of them."""

import json
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Response, expect
from pydantic import SecretStr
from sqlalchemy import select

from db.models import Build, BulkRun, BulkRunBuild
from db.transaction import transaction
from local.stack import LocalStack
from tests.harness.accessibility import scrolls_sideways, violations
from tests.harness.api_server import OPERATORS, RunningApi, new_database, running_api, settings_for
from tests.harness.console import DESKTOP, PHONE, Console, console_of
from tests.harness.fleet import fill_fleet

BUILDS = 2000
_OPERATOR = "operator-1"

PAGES = ("/fleet", "/fleet/stuck", "/fleet/spend", "/fleet/controls")


@pytest.fixture(scope="module")
async def fleet_api(stack: LocalStack) -> AsyncIterator[RunningApi]:
    """The API on a database of its own with the builds of many founders, and with the address of Temporal's UI."""
    settings = settings_for(
        await new_database(stack),
        stack.environment,
        api_user=_OPERATOR,
        api_operator_token=SecretStr(OPERATORS),
        temporal_ui_url=stack.temporal_ui_url,
        temporal_task_queue=f"fleet-{uuid.uuid4()}",
    )
    async with running_api(settings, stack.environment) as running:
        await fill_fleet(running.sessions, BUILDS)
        yield running


@pytest.fixture
async def operator(fleet_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    async with console_of(web_browser, fleet_api, _OPERATOR, is_operator=True, **DESKTOP) as signed_in:
        yield signed_in


@pytest.fixture
async def operators_phone(fleet_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    async with console_of(web_browser, fleet_api, _OPERATOR, is_operator=True, **PHONE) as signed_in:
        yield signed_in


def rows(page: Page) -> Locator:
    return page.get_by_role("table", name="Builds of all users").locator("tbody").get_by_role("row")


def tile(page: Page, name: str) -> Locator:
    return page.get_by_role("navigation", name="How the builds are").get_by_role("link").filter(has_text=name)


async def test_operators_see_all_builds_and_founders_find_nothing(operator: Console, fleet_api: RunningApi) -> None:
    page = operator.page
    await page.get_by_role("navigation", name="Menu").get_by_role("link", name="Fleet").click()
    await expect(page.get_by_text(f"{BUILDS:,} builds match.")).to_be_visible()
    await expect(tile(page, "Asleep")).to_contain_text(f"{BUILDS // 2:,}")
    documents = sum(request.is_navigation_request() for request in operator.requests)
    await tile(page, "Asleep").click()
    await expect(page.get_by_text(f"{BUILDS // 2:,} builds match.")).to_be_visible()
    assert page.url.endswith("/fleet?status=sleeping")
    await expect(rows(page).first).to_contain_text("Asleep")
    await page.get_by_label("User", exact=True).fill("fleet-7")
    await expect(page.get_by_text(re.compile(r"^\d builds? match"))).to_be_visible()
    await page.go_back()
    await expect(page.get_by_text(f"{BUILDS:,} builds match.")).to_be_visible()
    assert sum(request.is_navigation_request() for request in operator.requests) == documents, "it was not loaded again"

    browser = operator.context.browser
    assert browser is not None
    async with console_of(browser, fleet_api, "fleet-1", **DESKTOP) as founder:
        texts: list[str] = []
        founder.page.on("response", lambda response: texts.append(response.url))
        await founder.open("/fleet")
        await expect(founder.page.get_by_text("There is nothing at this address.")).to_be_visible()
        await expect(founder.page.get_by_role("link", name="Fleet")).to_have_count(0)
        assert not [url for url in texts if "/v1/ops" in url], "it asks for nothing that only operators have"
