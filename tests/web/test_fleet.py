"""The operators' pages: all builds by a filter, acts on many of them, and one of them across all servers."""

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from playwright.async_api import Browser, Locator, Page, expect
from pydantic import SecretStr
from sqlalchemy import select
from temporalio.worker import Worker

from activities.bulk import BulkActivities
from clients.browser import close_surely
from clients.build_workflows import BuildWorkflows
from clients.temporal import connect_temporal
from db.models import Build
from db.transaction import transaction
from domain.names import BUILD_WORKFLOW, WAKE, build_workflow_id
from local.stack import LocalStack
from tests.harness.accessibility import scrolls_sideways, violations
from tests.harness.api_server import OPERATORS, RunningApi, new_database, running_api, settings_for
from tests.harness.console import DESKTOP, PHONE, Console, console_of
from tests.harness.feeds import build_row
from tests.harness.fleet import fill_fleet
from workflows.bulk import BulkWorkflow

BUILDS = 2000
_OPERATOR = "operator-1"


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


def documents(console: Console) -> int:
    """How many times a page was loaded as a whole."""
    return sum(request.is_navigation_request() for request in console.requests)


async def some_build(api: RunningApi, status: str) -> Build:
    async with transaction(api.sessions) as tx:
        query = select(Build).where(Build.status == status, Build.user_id.startswith("fleet-")).order_by(Build.id)
        return (await tx.session.scalars(query.limit(1))).one()


async def test_operators_see_all_builds_and_founders_find_nothing(operator: Console, fleet_api: RunningApi) -> None:
    page = operator.page
    await page.get_by_role("navigation", name="Menu").get_by_role("link", name="Fleet").click()
    await expect(page.get_by_text(f"{BUILDS:,} builds match.")).to_be_visible()
    await expect(tile(page, "Asleep")).to_contain_text(f"{BUILDS // 2:,}")
    loaded = documents(operator)
    await tile(page, "Asleep").click()
    await expect(page.get_by_text(f"{BUILDS // 2:,} builds match.")).to_be_visible()
    assert page.url.endswith("/fleet?status=sleeping")
    await expect(rows(page).first).to_contain_text("Asleep")
    await page.get_by_label("User", exact=True).fill("fleet-7")
    await expect(page.get_by_text("4 builds match.")).to_be_visible()
    await page.go_back()
    await expect(page.get_by_text(f"{BUILDS:,} builds match.")).to_be_visible()
    assert documents(operator) == loaded, "a filter loads no page again"

    browser = operator.context.browser
    assert browser is not None
    async with console_of(browser, fleet_api, "fleet-1", **DESKTOP) as founder:
        await founder.open("/fleet")
        await expect(founder.page.get_by_text("There is nothing at this address.")).to_be_visible()
        await expect(founder.page.get_by_role("link", name="Fleet")).to_have_count(0)
        asked = [request.url for request in founder.requests if "/v1/ops" in request.url]
        assert asked == [], "it asks for nothing that only operators have"


@pytest.mark.web
async def test_operators_open_builds_of_others_on_their_own_page(operator: Console, fleet_api: RunningApi) -> None:
    """The page that founders have reads the builds of who is signed in."""
    page = operator.page
    await operator.open("/fleet?status=sleeping")
    await rows(page).first.get_by_role("link", name=re.compile("^Open the build of")).click()
    await expect(page).to_have_url(re.compile("/fleet/builds/"))
    await expect(page.get_by_role("region", name="Last events")).to_be_visible()
    await expect(page.get_by_role("link", name="Open the build")).to_have_count(0)
    ended = {"status": "cancelled", "closed_at": datetime.now(UTC)}  # other tests count the open ones
    own = await build_row(fleet_api.sessions, _OPERATOR, **ended)
    await operator.open(f"/fleet/builds/{own}")
    await page.get_by_role("link", name="Open the build").click()
    await expect(page).to_have_url(re.compile(f"/builds/{own}$"))
    await expect(page.locator("header h1")).to_be_visible()


@pytest.mark.web
async def test_two_thousand_builds_are_sorted_and_only_those_in_sight_are_rendered(operator: Console) -> None:
    page = operator.page
    await operator.open("/fleet")
    await expect(rows(page).first).to_be_visible()
    assert await rows(page).count() < 60
    table = page.get_by_role("table", name="Builds of all users")
    await expect(table).to_have_attribute("aria-rowcount", str(BUILDS + 1))
    await page.get_by_role("columnheader", name="Since").get_by_role("button").click()
    await expect(page).to_have_url(re.compile(r"sort=-since$"))
    await page.get_by_role("columnheader", name="Since").get_by_role("button").click()
    await expect(page).to_have_url(re.compile(r"sort=since$"))
    await expect(page.get_by_role("columnheader", name="Since")).to_have_attribute("aria-sort", "ascending")
    await expect(rows(page).first).to_contain_text(f"number {BUILDS}.")
    for _ in range(8):
        await page.mouse.wheel(0, 4000)
        await page.wait_for_timeout(100)
    await expect(rows(page).last).to_have_attribute("aria-rowindex", re.compile(r"^\d{3,}$"))
    assert await rows(page).count() < 60

    await page.get_by_text("The same builds in Temporal").click()
    await operator.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.get_by_role("button", name="Copy the query").click()
    copied = await page.evaluate("() => navigator.clipboard.readText()")
    assert copied.startswith(f'WorkflowType = "{BUILD_WORKFLOW}" AND ExecutionStatus = "Running"')


@asynccontextmanager
async def carrying_out(api: RunningApi, stack: LocalStack) -> AsyncIterator[None]:
    """Run a worker that carries out acts on many builds, and no builds."""
    queue, client = api.settings.temporal_task_queue, await connect_temporal(stack.environment)
    acts = BulkActivities(api.sessions, BuildWorkflows(client, queue))
    async with Worker(client, task_queue=queue, workflows=[BulkWorkflow], activities=[acts.carry_out_batch]):
        yield


@pytest.mark.web
async def test_selected_builds_are_woken_and_their_link_opens_the_workflow(
    operator: Console, fleet_api: RunningApi, stack: LocalStack, web_browser: Browser
) -> None:
    page = operator.page
    user = f"sleeper-{uuid.uuid4()}"
    temporal = fleet_api.temporal
    builds = [await build_row(fleet_api.sessions, user, status="sleeping") for _ in range(3)]
    for build in builds:
        await temporal.start_workflow(BUILD_WORKFLOW, id=build_workflow_id(build), task_queue="no-worker")

    await operator.open(f"/fleet?user={user}")
    await expect(rows(page)).to_have_count(3)
    await rows(page).nth(0).get_by_role("checkbox").check()
    await rows(page).nth(1).get_by_role("checkbox").check()
    await expect(page.get_by_text("2 builds selected")).to_be_visible()
    await page.get_by_role("button", name="Wake", exact=True).click()
    dialog = page.get_by_role("dialog", name="Wake builds")
    await dialog.get_by_label("Reason").fill("The model answers again.")
    await dialog.get_by_role("button", name="See what would happen").click()
    await expect(dialog.get_by_text("2 builds match, and it is possible for all of them.")).to_be_visible()
    await dialog.get_by_role("button", name="Wake 2 builds").click()
    runs = page.get_by_role("region", name="Acts on many builds")
    await expect(runs.get_by_text("0 of 2")).to_be_visible()
    await runs.get_by_role("button", name="Stop this run").click()
    await expect(runs.get_by_text("Stopped")).to_be_visible()
    async with carrying_out(fleet_api, stack):
        await runs.get_by_role("button", name="Resume").click()
        await expect(runs.get_by_text("2 of 2")).to_be_visible()
        await expect(runs.get_by_text("2 done")).to_be_visible()
    woken = []
    for build in builds:
        history = await temporal.get_workflow_handle(build_workflow_id(build)).fetch_history()
        signals = [event for event in history.events if event.HasField("workflow_execution_signaled_event_attributes")]
        names = [event.workflow_execution_signaled_event_attributes.signal_name for event in signals]
        assert names in ([WAKE], [])
        woken += names
    assert len(woken) == 2

    link = rows(page).first.get_by_role("link", name=re.compile("^Temporal"))
    address = await link.get_attribute("href")
    assert address is not None
    build_id = address.rpartition("build-")[2]
    assert uuid.UUID(build_id) in builds
    elsewhere = await web_browser.new_context(**DESKTOP)
    try:
        ui = await elsewhere.new_page()
        await ui.goto(address)
        await expect(ui.get_by_text(build_workflow_id(build_id)).first).to_be_visible()
        await expect(ui.get_by_text(BUILD_WORKFLOW).first).to_be_visible()
    finally:
        await close_surely(elsewhere)


@pytest.mark.web
async def test_one_build_is_read_and_stopped(operator: Console, fleet_api: RunningApi) -> None:
    page = operator.page
    build = await some_build(fleet_api, "sleeping")
    await operator.open(f"/fleet/builds/{build.id}")
    for name in ("In the database", "In Temporal", "Snapshots", "Ledger", "Last events"):
        await expect(page.get_by_role("region", name=name)).to_be_visible()
    await expect(page.get_by_text("Temporal has no workflow of it.")).to_be_visible()
    await page.get_by_role("link", name=build.user_id).click()
    await expect(page.get_by_role("heading", name=build.user_id)).to_be_visible()
    await expect(rows(page).first).to_be_visible()


@pytest.mark.web
async def test_an_account_is_topped_up_and_suspended(operator: Console, fleet_api: RunningApi) -> None:
    page = operator.page
    user = f"payer-{uuid.uuid4()}"
    await build_row(fleet_api.sessions, user)
    await operator.open(f"/fleet/users/{user}")
    await page.get_by_role("button", name="Top up").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Dollars").fill("a lot")
    await dialog.get_by_label("What for").fill("For the demo on Friday.")
    await dialog.get_by_role("button", name="Top up").click()
    await expect(dialog.get_by_text("This is not an amount of dollars.")).to_be_visible()
    await dialog.get_by_label("Dollars").fill("2.50")
    await dialog.get_by_role("button", name="Add $2.50").click()
    await expect(page.get_by_role("region", name="Account").get_by_text("$2.50").first).to_be_visible()
    await page.get_by_role("button", name="Suspend", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Suspend", exact=True).click()
    await expect(page.get_by_text("This account is suspended")).to_be_visible()
    account = await fleet_api.http.get("/v1/account", headers=operator.headers | {"X-Cofounder-User": user})
    assert (account.json()["suspended"], account.json()["topped_up"]) == (True, 2_500_000)
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.get_by_role("button", name="Lift the suspension").click()
    await page.get_by_role("dialog").get_by_role("button", name="Lift the suspension").click()
    await expect(page.get_by_text("This account is suspended")).to_have_count(0)


@pytest.mark.web
async def test_builds_are_switched_off_and_on_and_a_limit_is_set(operator: Console) -> None:
    page = operator.page
    await operator.open("/fleet/controls")
    switches = page.get_by_role("region", name="Switches")
    await switches.get_by_role("button", name="Switch builds off").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Which builds").select_option("Builds on a plan")
    await dialog.get_by_label("Plan").fill("partner")
    await dialog.get_by_label("Reason").fill("Too expensive today.")
    await dialog.get_by_role("button", name="Switch builds off").click()
    await expect(switches.get_by_text("Plan partner")).to_be_visible()
    await switches.get_by_role("button", name="Switch on: Plan partner").click()
    await page.get_by_role("dialog").get_by_role("button", name="Switch on").click()
    await expect(switches.get_by_text("Nothing is switched off.")).to_be_visible()

    await page.get_by_role("button", name="What it would do now").click()
    plan = page.get_by_role("dialog", name="What it would do now")
    await expect(plan.get_by_role("region", name="store")).to_be_visible()
    await plan.get_by_role("button", name="Close").last.click()

    limits = page.get_by_role("region", name="Limits")
    await limits.get_by_role("button", name="Change").click()
    await dialog.get_by_label("Dollars in a UTC day").fill("200")
    await dialog.get_by_role("button", name="Set the limit").click()
    await expect(limits.get_by_text("$200.00")).to_be_visible()
    await page.get_by_role("button", name="Read the audit").click()
    audit = page.get_by_role("region", name="Audit")
    await expect(audit.get_by_text("limit.set").first).to_be_visible()
    await limits.get_by_role("button", name="Change").click()
    await dialog.get_by_label("Dollars in a UTC day").fill("")
    await dialog.get_by_role("button", name="Remove the limit").click()
    await expect(limits.get_by_text("no limit")).to_be_visible()


@pytest.mark.web
async def test_spending_is_summed_and_downloaded(operator: Console) -> None:
    page = operator.page
    await operator.open("/fleet/spend")
    await expect(page.get_by_role("link", name=re.compile("^fleet-")).first).to_be_visible()
    await page.get_by_label("Rows").select_option("By model")
    await expect(page).to_have_url(re.compile("by=model"))
    await expect(page.get_by_role("link", name="claude-haiku-5-5")).to_be_visible()
    async with page.expect_download() as started:
        await page.get_by_role("button", name="Download as CSV").click()
    path = await (await started.value).path()
    lines = path.read_text().splitlines()
    assert lines[0].startswith("key,spent_microdollars")
    assert any(line.startswith("claude-haiku-5-5,") for line in lines)


@pytest.mark.web
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/fleet", "/fleet/stuck", "/fleet/spend", "/fleet/controls", "build", "user"])
async def test_the_pages_have_nothing_against_them(
    operator: Console, operators_phone: Console, fleet_api: RunningApi, theme: str, path: str
) -> None:
    build = await some_build(fleet_api, "sleeping")
    own = {"build": f"/fleet/builds/{build.id}", "user": f"/fleet/users/{build.user_id}"}
    for each in (operator, operators_phone):
        await each.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        await each.open(own.get(path, path))
        await expect(each.page.get_by_role("heading", level=1)).to_have_count(1)
        await expect(each.page.get_by_role("status", name="Loading")).to_have_count(0)
        assert await violations(each.page) == []
        assert not await scrolls_sideways(each.page)
