"""Every page of the console, with what opens over it and what it shows while it loads or fails, is usable by everyone.

Pages, their tabs and dialogs are in `views.py`: what is added there is looked at here in both themes, on a desktop and
on a phone.
"""

import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Route, expect

from db.models import AuditEntry, Build
from db.transaction import transaction
from domain.audit import Action
from domain.identity import How
from tests.harness.accessibility import violations
from tests.harness.api_server import RunningApi
from tests.harness.console import DESKTOP, PHONE, Console, console_of
from tests.harness.feeds import build_row
from tests.harness.wait import wait_until
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

DEVICES = pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"], indirect=True)


@pytest.fixture
async def device(request: pytest.FixtureRequest, web_api: RunningApi, web_browser: Browser) -> AsyncIterator[Console]:
    """A founder's browser, on a desktop or a phone. Nothing moves on its pages: colours are what they end as."""
    async with console_of(web_browser, web_api, f"founder-{uuid.uuid4()}", **request.param) as signed_in:
        await signed_in.page.emulate_media(reduced_motion="reduce")
        yield signed_in


async def in_both_themes(page: Page) -> list[dict[str, Any]]:
    """Return what breaks a rule in the light or in the dark theme."""
    found = []
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
        broken = await violations(page, spacing=theme == "light")
        found += [each | {"theme": theme} for each in broken]
    return found


async def assert_all_are_usable(console: Console, views: Iterable[View]) -> None:
    """Show each view and look at it. All that is found is in the message."""
    is_phone = await console.page.evaluate("() => matchMedia('(pointer: coarse)').matches")
    found = {}
    for view in views:
        await show(console.page, console.api.url, view, is_phone=is_phone)
        if broken := await in_both_themes(console.page):
            found[str(view)] = broken
    assert found == {}


async def test_the_account_has_nothing_against_it(console: Console) -> None:
    await console.page.emulate_media(reduced_motion="reduce")
    await assert_all_are_usable(console, [View("/account", ("heading", "Your data"))])


@pytest.mark.web
@DEVICES
async def test_founders_pages_have_nothing_against_them(device: Console) -> None:
    sample = await make_sample(device)
    await assert_all_are_usable(device, [*founders_pages(sample), *empty_panels(sample)])


@pytest.mark.web
@DEVICES
async def test_what_opens_over_founders_pages_has_nothing_against_it(device: Console) -> None:
    await assert_all_are_usable(device, founders_dialogs(await make_sample(device)))


@pytest.mark.web
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_operators_pages_have_nothing_against_them(
    web_api: RunningApi, web_browser: Browser, size: dict[str, Any]
) -> None:
    user = f"founder-{uuid.uuid4()}"
    build = await build_row(web_api.sessions, user)
    async with transaction(web_api.sessions) as tx:
        entry = {"actor": user, "how": How.API_KEY, "user_id": user, "build_id": build, "action": Action.BUILD_WAKE}
        long = {"changed": [f"field_{number}" for number in range(20)]}  # its links wrap
        tx.session.add_all(AuditEntry(**entry, fields=long) for _ in range(2))
    async with console_of(web_browser, web_api, web_api.settings.api_user, is_operator=True, **size) as operator:
        await operator.page.emulate_media(reduced_motion="reduce")
        await assert_all_are_usable(operator, [*operators_pages(build, user), *operators_dialogs(build, user)])


def _is_of_build(url: str) -> bool:
    """Whether it is the request for a build's row."""
    return re.fullmatch(r"/v1/builds/[0-9a-f-]{36}", urlsplit(url).path) is not None


async def _keep_from(page: Page, answer: Callable[[Route], Awaitable[None]], *, known: bool) -> None:
    """Answer what pages ask the API like this, except who is signed in.

    Args:
        known: the build itself is read all the same, so that it is its parts that lack an answer.
    """

    async def handle(route: Route) -> None:
        url = route.request.url
        is_known = urlsplit(url).path == "/v1/me" or (known and _is_of_build(url))
        await (route.continue_() if is_known else answer(route))

    await page.unroute_all(behavior="ignoreErrors")
    await page.route("**/v1/**", handle)


async def _wait_for_ever(_: Route) -> None:
    """No answer comes."""


@pytest.mark.web
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_pages_that_load_have_nothing_against_them(
    web_api: RunningApi, web_browser: Browser, size: dict[str, Any]
) -> None:
    found = {}
    user = web_api.settings.api_user
    async with console_of(web_browser, web_api, user, is_operator=True, **size) as operator:
        page = operator.page
        await page.emulate_media(reduced_motion="reduce")
        for path, known in await _paths(operator):
            await _keep_from(page, _wait_for_ever, known=known)
            await operator.open(path)
            await expect(page.locator("[data-loading]").first).to_be_visible()
            if broken := await in_both_themes(page):
                found[path, known] = broken
        await page.unroute_all(behavior="ignoreErrors")
    assert found == {}


@pytest.mark.web
@pytest.mark.parametrize(("size", "status"), [(DESKTOP, 500), (PHONE, 503)], ids=["desktop", "phone"])
async def test_pages_that_fail_have_nothing_against_them(
    web_api: RunningApi, web_browser: Browser, size: dict[str, Any], status: int
) -> None:
    problem = {"type": "urn:cofounder:problem:internal", "title": "Internal error", "status": status}
    body = json.dumps(problem | {"detail": "Something went wrong. Try again in a minute."})

    async def fail(route: Route) -> None:
        await route.fulfill(status=status, content_type="application/problem+json", body=body)

    found = {}
    user = web_api.settings.api_user
    async with console_of(web_browser, web_api, user, is_operator=True, **size) as operator:
        operator.expect_error(f"status of {status}")
        page = operator.page
        await page.emulate_media(reduced_motion="reduce")
        paths = await _paths(operator)
        await page.clock.install()
        for path, known in paths:
            await _keep_from(page, fail, known=known)
            await operator.open(path)
            await _until_it_gives_up(page)
            if broken := await in_both_themes(page):
                found[path, known] = broken
        await page.unroute_all(behavior="ignoreErrors")
    assert found == {}


async def _paths(operator: Console) -> list[tuple[str, bool]]:
    """Pages that ask the API for something, and tabs of a build that is known."""
    build = await build_row(operator.api.sessions, operator.user)
    async with transaction(operator.api.sessions) as tx:
        project = (await tx.session.get_one(Build, build)).project_id
    pages = ("/", "/new", "/usage", "/account", f"/projects/{project}", f"/projects/{project}/edit", f"/builds/{build}")
    fleet = [view.path for view in operators_pages(build, operator.user)]
    tabs = [f"/builds/{build}?tab={tab}" for tab in ("changes", "files", "documents", "screenshots", "details")]
    return [*((path, False) for path in (*pages, *fleet)), *((path, True) for path in tabs)]


async def _until_it_gives_up(page: Page) -> None:
    """Let the page's time pass until it asks no more and says what is wrong. Its clock has to be installed."""

    async def gave_up() -> bool:
        await page.clock.fast_forward(5_000)
        alerts = await page.get_by_role("alert").locator("visible=true").count()
        return alerts > 0 and await page.locator("[data-loading]").count() == 0

    await wait_until(gave_up)


@pytest.mark.web
@DEVICES
async def test_signing_in_and_out_has_nothing_against_it(device: Console) -> None:
    page, url = device.page, device.api.url
    build = await build_row(device.api.sessions, device.user)
    device.expect_error("ERR_INTERNET_DISCONNECTED", "status of 4")
    await device.open(f"/builds/{build}")
    await expect(page.get_by_role("region", name="Feed")).to_be_visible()
    await device.context.set_offline(True)
    await expect(page.get_by_text("You are offline.")).to_be_visible()
    assert ("offline", await in_both_themes(page)) == ("offline", [])
    await device.context.set_offline(False)
    await expect(page.get_by_text("You are offline.")).to_have_count(0)

    other = await device.new_tab("/")
    await other.emulate_media(reduced_motion="reduce")
    await other.get_by_role("button", name="Account").click()
    await other.get_by_role("menuitem", name="Sign out").click()
    await expect(page.get_by_role("dialog", name="You are signed out")).to_be_visible()
    assert ("signed out", await in_both_themes(page)) == ("signed out", [])

    unknown = f"#code={'x' * 43}&to=%2F"
    pages = ("/sign-in", f"/sign-in{unknown}", f"/previews/{build}", f"/deleted/{uuid.uuid4()}")
    for path in pages:
        await other.goto("about:blank")
        await other.goto(f"{url}{path}")
        await expect(other.get_by_role("heading", level=1).first).to_be_visible()
        await settled(other)
        assert (path, await in_both_themes(other)) == (path, [])
