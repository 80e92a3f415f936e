"""Each kind of problem that the API answers with has a view: its sentence, and a way on."""

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Locator, Page, Route, expect

from api import errors
from api.errors import Kind
from tests.harness.console import Console
from tests.harness.feeds import build_row
from tests.harness.stored_files import store_files
from tests.web.build_page import ask, box

pytestmark = pytest.mark.web

SENTENCE = "What is wrong. What to do."

KINDS = {kind.slug: kind for kind in vars(errors).values() if isinstance(kind, Kind)}

View = tuple[Locator, str, Locator]
"""Where a problem is shown, the sentence that is there, and what one does next."""


async def answer_with(page: Page, kind: Kind, pattern: str, method: str = "GET", **more: Any) -> None:
    """Answer requests of the page with the problem from now on."""
    body = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": SENTENCE, **more}

    async def handle(route: Route) -> None:
        if route.request.method != method:
            await route.fallback()
            return
        await route.fulfill(status=kind.status, body=json.dumps(body), content_type="application/problem+json")

    await page.route(re.compile(pattern), handle)


async def _open_build(console: Console) -> uuid.UUID:
    build = await build_row(console.api.sessions, console.user)
    await console.open(f"/builds/{build}")
    await expect(box(console.page)).to_be_visible()
    return build


async def in_a_list(console: Console, kind: Kind) -> View:
    page = console.page
    await build_row(console.api.sessions, console.user)
    await answer_with(page, kind, "/v1/projects[?]")
    await console.open("/")
    shown = page.get_by_role("main").get_by_role("alert").filter(has_text=SENTENCE)
    return shown, SENTENCE, shown.get_by_role("button", name="Try again")


async def at_the_steer_box(console: Console, kind: Kind) -> View:
    page = console.page
    await _open_build(console)
    await answer_with(page, kind, "/messages$", "POST")
    await box(page).fill("Blue, please.")
    await page.get_by_role("button", name="Send").click()
    shown = page.get_by_role("main").get_by_role("alert")
    await expect(box(page)).to_have_value("Blue, please.")
    return shown, SENTENCE, shown.get_by_role("button", name="Send again")


async def _start_a_build(console: Console, kind: Kind, **more: Any) -> Locator:
    page = console.page
    build = await build_row(console.api.sessions, console.user, status="failed", closed_at=datetime.now(UTC))
    await answer_with(page, kind, "/builds$", "POST", **more)
    await console.open(f"/projects/{(await console.api.row(str(build))).project_id}")
    await page.get_by_label("Goal").fill("A list.")
    await page.get_by_role("button", name="Start the build").click()
    return page.get_by_role("main")


async def at_a_new_build(console: Console, kind: Kind) -> View:
    main = await _start_a_build(console, kind)
    await expect(main.get_by_label("Goal")).to_have_value("A list.")
    return main.get_by_role("alert"), SENTENCE, main.get_by_role("button", name="Start the build")


async def beside_an_open_build(console: Console, kind: Kind) -> View:
    main = await _start_a_build(console, kind, build_id=str(uuid.uuid4()))
    return main.get_by_role("alert"), "being built already", main.get_by_role("alert").get_by_role("link")


async def at_a_field(console: Console, kind: Kind) -> View:
    main = await _start_a_build(console, kind, errors=[{"field": "goal", "message": SENTENCE}])
    await expect(main.get_by_label("Goal")).to_be_focused()
    return main, SENTENCE, main.get_by_label("Goal")


async def when_signed_out(console: Console, kind: Kind) -> View:
    await answer_with(console.page, kind, "/v1/projects[?]")
    await console.open("/")
    dialog = console.page.get_by_role("dialog", name="You are signed out")
    return dialog, "Nothing on this page is lost.", dialog.get_by_role("link", name="Sign in")


async def when_a_link_is_old(console: Console, kind: Kind) -> View:
    await answer_with(console.page, kind, "/v1/sign-ins$", "POST", reason="expired")
    await console.context.clear_cookies()
    await console.page.goto(await console.sign_in_link())
    main = console.page.get_by_role("main")
    return main, "This link has expired", main.get_by_text("cofounder open")


async def of_a_build_that_is_not_there(console: Console, kind: Kind) -> View:
    await console.open(f"/builds/{uuid.uuid4()}")
    main = console.page.get_by_role("main")
    return main, "There is no such build", main.get_by_role("link", name="Go to your projects")


async def when_a_message_is_taken_back(console: Console, kind: Kind) -> View:
    page = console.page
    await _open_build(console)
    await box(page).fill("Blue, please.")
    await page.get_by_role("button", name="Send").click()
    await answer_with(page, kind, "/messages/1$", "DELETE")
    await page.get_by_role("button", name="Take back").click()
    return page.get_by_role("main").get_by_role("alert"), SENTENCE, box(page)


async def when_a_question_is_answered(console: Console, kind: Kind) -> View:
    page = console.page
    build = await build_row(console.api.sessions, console.user)
    await ask(console, build, "Which colour?")
    await answer_with(page, kind, "/answer$", "POST", answer="It is port 3000.")
    await console.open(f"/builds/{build}")
    await page.get_by_label("Commit what works").check()
    await page.get_by_role("button", name="Answer").click()
    return page.locator("#question"), "answered in another window: “It is port 3000.”", box(page)


async def in_a_dialog(console: Console, kind: Kind) -> View:
    page = console.page
    await _open_build(console)
    await answer_with(page, kind, "/(cancel|finish)$", "POST")
    await page.get_by_role("button", name="Wrap up now").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Wrap up now").click()
    return dialog, SENTENCE, dialog.get_by_role("button", name="Let it go on")


async def at_a_secret(console: Console, kind: Kind) -> View:
    page = console.page
    build = await build_row(console.api.sessions, console.user)
    await answer_with(page, kind, "/secrets/", "PUT")
    await console.open(f"/projects/{(await console.api.row(str(build))).project_id}")
    await page.get_by_role("region", name="Secrets").get_by_role("button").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("KEY")
    await dialog.get_by_label("Value").fill("secret")
    await dialog.get_by_role("button", name="Set").click()
    return dialog, SENTENCE, dialog.get_by_role("button", name="Close")


async def at_members(console: Console, kind: Kind) -> View:
    page = console.page
    await console.open("/account")
    await page.get_by_role("button", name="Make an organisation").click()
    await page.get_by_role("dialog").get_by_label("Name").fill("The choir")
    await page.get_by_role("dialog").get_by_role("button", name="Make an organisation").click()
    await answer_with(page, kind, "/members/", "PUT")
    choir = page.get_by_role("listitem").filter(has_text="The choir")
    await choir.get_by_role("button", name="Members").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Add a member").fill("ada")
    await dialog.get_by_role("button", name="Add", exact=True).click()
    return dialog, SENTENCE, dialog.get_by_role("button", name="Close")


async def at_a_push(console: Console, kind: Kind) -> View:
    build = await build_row(console.api.sessions, console.user, status="ready", closed_at=datetime.now(UTC))
    await store_files(console.api, str(build), [("README.md", b"# Hello", {})])
    await answer_with(console.page, kind, "/push", "POST")
    await console.open(f"/builds/{build}?tab=details")
    panel = console.page.get_by_role("tabpanel")
    await panel.get_by_text("Push to a git server").click()
    await panel.get_by_label("Repository").fill("https://git.invalid/me/app.git")
    await panel.get_by_label("Token").fill("ghp_a-token-of-mine")
    await panel.get_by_role("button", name="Push", exact=True).click()
    return panel.get_by_role("alert"), SENTENCE, panel.get_by_role("button", name="Push", exact=True)


async def at_a_preview(console: Console, kind: Kind) -> View:
    build = await build_row(
        console.api.sessions, console.user, status="ready", closed_at=datetime(2026, 11, 1, tzinfo=UTC)
    )
    await answer_with(console.page, kind, "/preview", "POST")
    await console.open(f"/builds/{build}?tab=preview")
    panel = console.page.get_by_role("tabpanel")
    await panel.get_by_role("button", name="Start the preview").click()
    return panel, SENTENCE, panel.get_by_role("button", name="Start the preview")


async def at_an_idea(console: Console, kind: Kind) -> View:
    page = console.page
    build = await build_row(console.api.sessions, console.user, status="failed", closed_at=datetime.now(UTC))
    await answer_with(page, kind, "/brief$", "PUT")
    await console.open(f"/projects/{(await console.api.row(str(build))).project_id}/edit")
    await page.get_by_label("Problem, and for whom").fill("Tools.")
    await page.get_by_role("navigation", name="Steps").get_by_role("link", name="Review").click()
    save = page.get_by_role("button", name="Only save")
    await save.click()
    return page.get_by_role("main").get_by_role("alert"), SENTENCE, save


VIEWS: dict[str, Callable[[Console, Kind], Awaitable[View]]] = {
    "unauthorized": when_signed_out,
    "sign-in-link": when_a_link_is_old,
    "account-suspended": at_a_new_build,
    "refused": in_a_dialog,
    "insufficient-scope": in_a_list,
    "no-secrets-key": at_a_secret,
    "cross-site": at_the_steer_box,
    "not-found": of_a_build_that_is_not_there,
    "conflict": in_a_dialog,
    "open-build": beside_an_open_build,
    "project-archived": at_a_new_build,
    "idempotency-key-reused": at_a_new_build,
    "snapshot-not-stored": at_a_new_build,
    "build-closed": at_the_steer_box,
    "build-not-ready": at_a_preview,
    "message-read": when_a_message_is_taken_back,
    "already-answered": when_a_question_is_answered,
    "restore-waits": in_a_dialog,
    "last-owner": at_members,
    "push-failed": at_a_push,
    "too-many-unread": at_the_steer_box,
    "body-too-large": at_an_idea,
    "malformed-json": at_the_steer_box,
    "malformed-http": in_a_list,
    "foreign-host": in_a_list,
    "invalid-request": at_a_field,
    "too-many-requests": in_a_list,
    "autonomous-agent-off": at_a_new_build,
    "single-user": at_a_new_build,
    "unavailable": at_a_new_build,
    "internal": at_a_new_build,
    "method-not-allowed": in_a_dialog,
    "unsupported-media-type": at_the_steer_box,
}
"""The page that can get each kind. `version-conflict` has a dialog of its own: test_new_idea.py."""


async def test_each_kind_of_problem_has_a_sentence_and_a_way_on(console: Console) -> None:
    assert set(VIEWS) | {"version-conflict"} == set(KINDS), "say here which page can get it"
    console.expect_error("status of 4", "status of 5")
    for slug in sorted(VIEWS, key="sign-in-link".__eq__):  # which comes last, as it signs out
        shown, said, next_step = await VIEWS[slug](console, KINDS[slug])
        await expect(shown, slug).to_contain_text(said)
        await expect(next_step, slug).to_be_visible()
        await expect(next_step, slug).to_be_enabled()
        await console.page.unroute_all()


@pytest.mark.parametrize("kind", [errors.INTERNAL, errors.UNAVAILABLE], ids=["500", "503"])
async def test_a_page_that_can_not_be_read_is_read_again(console: Console, kind: Kind) -> None:
    page = console.page
    build = await build_row(console.api.sessions, console.user)
    project = (await console.api.row(str(build))).project_id
    console.expect_error("status of 50")
    for pattern, path, heading in (
        (f"/v1/builds/{build}$", f"/builds/{build}", "Plot & Neighbour"),
        ("/v1/(projects|builds)[?]", "/", "Projects"),
        (f"/v1/projects/{project}$", f"/projects/{project}", "Plot & Neighbour"),
        ("/v1/usage", "/usage", "Days"),
    ):
        await answer_with(page, kind, pattern)
        await console.open(path)
        alert = page.get_by_role("main").get_by_role("alert").filter(has_text=SENTENCE)
        await expect(alert.first).to_be_visible()
        await page.unroute_all()
        while await alert.count() > 0:
            await alert.first.get_by_role("button", name="Try again").click()
            await page.wait_for_timeout(200)
        await expect(page.get_by_role("heading", name=heading).first).to_be_visible()


async def test_a_page_asks_again_when_the_server_says(console: Console) -> None:
    page = console.page
    await build_row(console.api.sessions, console.user)
    console.expect_error("status of 429")
    body = {"type": errors.TOO_MANY_REQUESTS.uri, "detail": SENTENCE}
    answer = {"status": 429, "body": json.dumps(body), "content_type": "application/problem+json"}
    await page.route("**/v1/projects?*", lambda route: route.fulfill(**answer, headers={"Retry-After": "2"}), times=1)
    await console.open("/")
    await expect(page.get_by_text(re.compile("It is asked again in [12] s."))).to_be_visible()
    await expect(page.get_by_role("region", name="Projects").get_by_role("listitem")).to_have_count(1)
    await expect(page.get_by_text(SENTENCE)).to_have_count(0)
