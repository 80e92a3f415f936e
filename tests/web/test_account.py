"""The pages for the account and for usage."""

import json
import re
import uuid
from datetime import UTC, date, datetime, timedelta

import pytest
from playwright.async_api import Locator, Page, Route, expect
from sqlalchemy import select

from api import errors
from clients.object_store import ObjectStore, store_config
from db import stored_exports
from db.erasures import finish, note_counts
from db.models import ApiKey, Erasure, StoredExport, User
from db.projects import create_project
from db.transaction import transaction
from db.users import ensure_user
from tests.harness.accessibility import scrolls_sideways, violations
from tests.harness.api_server import make_key
from tests.harness.console import Console
from tests.harness.feeds import build_row
from tests.harness.receiver import receiving

PAGES = ("/account", "/usage")


def section(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name)


async def test_a_key_is_shown_once_replaced_and_revoked(console: Console) -> None:
    page = console.page
    await console.open("/account")
    keys = section(page, "API keys")
    await keys.get_by_role("button", name="Make a key").click()
    name = 'nightly <img src=x onerror="alert(1)">'
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_label("Start, steer and stop builds").uncheck()
    await page.get_by_role("button", name="Make the key").click()
    shown = page.get_by_role("dialog", name="The new key")
    secret = await shown.locator("code").inner_text()
    assert secret.startswith("cf_")
    me = await console.api.http.get("/v1/me", headers={"Authorization": f"Bearer {secret}"})
    assert "builds:write" not in me.json()["scopes"]
    assert "builds:read" in me.json()["scopes"]
    await shown.get_by_role("button", name="I have stored it").click()
    await expect(page.get_by_text(secret)).to_have_count(0)
    await expect(keys.get_by_text(name)).to_be_visible()

    await keys.get_by_role("button", name=f"Replace: {name}").click()
    await page.get_by_role("dialog").get_by_role("button", name="Replace").click()
    replaced = await shown.locator("code").inner_text()
    assert replaced != secret
    await shown.get_by_role("button", name="I have stored it").click()
    await expect(keys.get_by_text("Replaced: it ends soon")).to_be_visible()

    await keys.get_by_role("button", name=f"Revoke: {name}").first.click()  # the newest, and with it what it replaced
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await expect(keys.get_by_text(name)).to_have_count(0)
    async with transaction(console.api.sessions) as tx:
        query = select(ApiKey.revoked_at).where(ApiKey.user_id == console.user, ApiKey.name == name)
        assert all((await tx.session.scalars(query)).all())


_FILE = b"a zip, as far as the console knows"


async def _write(console: Console, export: StoredExport) -> None:
    """Do what a worker does, and issue the certificate."""
    claim, key = uuid.uuid4(), f"exports/{export.id}.zip"
    async with ObjectStore(store_config(console.api.settings)) as store:
        await store.put(key, _FILE)
    written = stored_exports.WrittenExport(key, len(_FILE), "a", {}, "b")
    async with transaction(console.api.sessions) as tx:
        assert await stored_exports.claim_export(tx, export.id, claim) is not None
        assert await stored_exports.store_export(tx, export.id, claim, written)


async def test_a_project_is_exported(console: Console) -> None:
    page = console.page
    async with transaction(console.api.sessions) as tx:
        await ensure_user(tx, console.user)
        others = await stored_exports.insert_export(tx, console.user, None, console.user, None)
        project = await create_project(tx, console.user, "The choir", None, None)
    assert others is not None
    await console.open(f"/projects/{project.id}")
    exports = section(page, "Exports")
    await exports.get_by_role("button", name="Export this project").click()
    waiting = exports.get_by_role("listitem")
    await expect(waiting).to_have_count(1)
    await expect(waiting).to_contain_text("Begins in a moment")
    await expect(exports.get_by_role("button", name="Export this project")).to_be_disabled()
    async with transaction(console.api.sessions) as tx:
        export = await stored_exports.find_open_export(tx, console.user, project.id)
        assert export is not None
        await stored_exports.fail_exports(tx, [export.id], "Its files are <b>too many</b>.")
    await expect(waiting).to_contain_text("Its files are <b>too many</b>.")
    await exports.get_by_role("button", name="Export this project").click()
    await expect(exports.get_by_role("listitem")).to_have_count(2)
    assert await violations(page) == []
    assert not await scrolls_sideways(page)


async def test_an_export_that_is_refused_for_a_while_is_asked_for_again(console: Console) -> None:
    page = console.page
    console.expect_error("status of 429")
    body = {"type": errors.TOO_MANY_REQUESTS.uri, "detail": "Too many requests were made."}
    asked: list[str] = []

    async def refuse_first(route: Route) -> None:
        asked.append(route.request.headers["idempotency-key"])
        if len(asked) == 1:
            kind = "application/problem+json"
            await route.fulfill(status=429, body=json.dumps(body), content_type=kind, headers={"Retry-After": "2"})
        else:
            await route.continue_()

    await page.route("**/v1/account/exports", refuse_first)
    await console.open("/account")
    data = section(page, "Your data")
    await data.get_by_role("button", name="Export my data").click()
    await expect(data.get_by_text(re.compile("It is asked again in [12] s."))).to_be_visible()
    await expect(data.get_by_role("listitem")).to_have_count(1)
    await expect(data.get_by_role("alert")).to_have_count(0)
    assert len(asked) == 2
    assert asked[0] == asked[1], "a request whose answer was lost may have begun an export"


async def test_an_account_is_exported_and_deleted(console: Console) -> None:
    page = console.page
    await console.open("/account")
    data = section(page, "Your data")
    await data.get_by_role("button", name="Export my data").click()
    await expect(data.get_by_role("listitem")).to_contain_text("Begins in a moment")
    async with transaction(console.api.sessions) as tx:
        export = await tx.session.scalar(select(StoredExport).where(StoredExport.user_id == console.user))
    assert export is not None
    assert export.project_id is None
    await _write(console, export)
    async with page.expect_download() as downloading:
        await data.get_by_role("link", name="Download").click()
    assert re.fullmatch(r"account-\d{8}\.zip", (await downloading.value).suggested_filename)
    assert (await (await downloading.value).path()).read_bytes() == _FILE
    assert await violations(page) == []

    await data.get_by_role("button", name="Delete my account").click()
    dialog = page.get_by_role("dialog", name="Delete your account?")
    await dialog.get_by_role("button", name="Delete my account").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("Type the words")
    await dialog.get_by_label("To confirm").fill("Delete my account")
    await dialog.get_by_role("button", name="Delete my account").click()
    await expect(page.get_by_role("status")).to_have_text("Your data is being deleted. You can close this page.")
    erasure = uuid.UUID(page.url.rpartition("/")[2])
    assert await violations(page) == []
    assert not await scrolls_sideways(page)
    async with transaction(console.api.sessions) as tx:
        assert (await tx.session.get_one(Erasure, erasure)).requested_by == console.user
        assert (await tx.session.get_one(User, console.user)).suspended
        await note_counts(tx, erasure, {"messages": 412})
        await finish(tx, erasure)
    await expect(page.get_by_role("status").first).to_contain_text("Everything listed here is gone.")
    await expect(page.get_by_text("412", exact=True)).to_be_visible()
    signed_out = await page.request.get(f"{console.api.url}/v1/me")
    assert signed_out.status == 401


async def test_an_organisation_and_its_webhook(console: Console) -> None:
    page = console.page
    member = f"bob-{uuid.uuid4()}"
    await make_key(console.api.sessions, member)
    await console.open("/account")
    await page.get_by_role("button", name="Make an organisation").click()
    await page.get_by_role("dialog").get_by_label("Name").fill("The choir")
    await page.get_by_role("dialog").get_by_role("button", name="Make an organisation").click()
    choir = section(page, "Organisations").get_by_role("listitem").filter(has_text="The choir")
    await choir.get_by_role("button", name="Members").click()
    await page.get_by_label("Add a member").fill(member)
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_role("row").filter(has_text=member)).to_be_visible()
    console.expect_error("status of 404")
    await page.get_by_label("Add a member").fill("nobody-of-this-name")
    await page.get_by_role("button", name="Add", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("nobody-of-this-name")
    await page.get_by_role("button", name="Close").click()

    async with receiving() as receiver:
        await page.get_by_role("button", name="Make a webhook").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Address").fill("https://10.0.0.1/hook")
        console.expect_error("status of 422")
        await dialog.get_by_role("button", name="Make a webhook").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("private address")
        await dialog.get_by_label("Address").fill(receiver.url)
        await dialog.get_by_label("Whose builds").select_option("The choir")
        await dialog.get_by_role("button", name="Make a webhook").click()
        await page.get_by_role("dialog", name="The new webhook's secret").get_by_role("button", name="I have").click()
        webhooks = section(page, "Webhooks")
        await expect(webhooks.get_by_text(receiver.url)).to_be_visible()
        await webhooks.get_by_role("button", name="Test").click()
        deliveries = page.get_by_role("dialog")
        await expect(deliveries.get_by_text("A test")).to_be_visible()
        # "Queued" without a worker. One of another test may begin with it, and end before it has sent it.
        await expect(deliveries.get_by_text(re.compile("Queued|Being sent"))).to_be_visible()
        await deliveries.get_by_role("button", name="Close").click()
        await webhooks.get_by_role("button", name="New secret").click()
        await page.get_by_role("dialog").get_by_role("button", name="Make a new secret").click()
        rotated = page.get_by_role("dialog", name="The webhook's new secret")
        await expect(rotated.get_by_text("whsec_")).to_be_visible()
        await rotated.get_by_role("button", name="I have").click()
        await expect(webhooks.get_by_text("The old secret signs until")).to_be_visible()
        await webhooks.get_by_role("button", name="Switch off").click()
        await expect(webhooks.get_by_role("button", name="Switch on")).to_be_visible()


@pytest.mark.web
async def test_another_browser_is_signed_out(console: Console, phone: Console) -> None:
    link = await console.sign_in_link("/account")
    phone.expect_error("status of 401")
    await phone.page.goto(link)
    await expect(phone.page.get_by_role("heading", name="Account")).to_be_visible()
    await console.open("/account")
    browsers = section(console.page, "Browsers that are signed in").get_by_role("listitem")
    await expect(browsers.filter(has_text="This browser").get_by_role("button")).to_have_count(0)
    await browsers.get_by_role("button", name="Sign out").first.click()
    await console.page.get_by_role("dialog").get_by_role("button", name="Sign out").click()
    await expect(console.page.get_by_role("dialog")).to_have_count(0)
    await phone.page.reload()
    await expect(phone.page.get_by_role("dialog", name="You are signed out")).to_be_visible()


async def test_usage_says_what_was_used_and_when_the_next_allowance_begins(console: Console) -> None:
    page = console.page
    await build_row(console.api.sessions, console.user)
    await console.open("/usage")
    await expect(page.get_by_role("meter", name="Today's allowance").last).to_have_attribute(
        "aria-valuetext", re.compile(r"0 % of today's allowance")
    )
    await expect(page.get_by_text(re.compile("00:00 UTC"))).to_be_visible()
    await expect(page.get_by_text("No model was called in these days.")).to_be_visible()
    today = datetime.now(UTC).date()
    await page.get_by_label("From").fill((today + timedelta(days=1)).isoformat())
    await page.get_by_label("To", exact=True).fill(today.isoformat())
    console.expect_error("status of 422")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("alert")).to_contain_text("which is after")
    await page.get_by_label("From").fill(date(today.year, 1, 1).isoformat())
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.web
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
async def test_the_pages_have_nothing_against_them(console: Console, phone: Console, theme: str, path: str) -> None:
    for each in (console, phone):
        await each.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        await each.open(path)
        await expect(each.page.get_by_role("heading", level=2).first).to_be_visible()
        await expect(each.page.get_by_role("status", name="Loading")).to_have_count(0)
        assert await violations(each.page) == []
        assert not await scrolls_sideways(each.page)
