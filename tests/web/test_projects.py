"""The first page of the console, and the page of a product, with builds that no worker runs."""

import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Route, expect
from sqlalchemy import func

from clients.browser import close_surely
from db.builds import BuildRequest, insert_build
from db.models import Build, GateRun, Preview, Project, Question, Snapshot
from db.projects import create_project
from db.transaction import transaction
from db.users import ensure_user
from domain.events import StatusEvent
from tests.harness.accessibility import scrolls_sideways, violations
from tests.harness.console import Console
from tests.harness.feeds import build_row, write_events
from tests.harness.wait import wait_until

MARKUP = [
    "<script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title = 'run'\">",
    "<svg/onload=alert(1)>",
    "javascript:alert(1)",
    "{{7*7}} ${7*7} #{7*7}",
    "</script></textarea></title><iframe src=//example.com>",
    "[a link](https://example.com) ![an image](https://example.com/a.png)",
    "\u202egnp.exe\u202c \u200bnothing\u2066 between",
    "\u001b[31mred\u001b[0m \u0007",
    '" onfocus=alert(1) autofocus "',
]


async def test_builds_that_need_their_founder_come_first(console: Console) -> None:
    page = console.page
    await build_row(console.api.sessions, console.user)
    midnight = datetime.now(UTC) + timedelta(days=1)
    await build_row(console.api.sessions, console.user, status="sleeping", wakes_at=midnight)
    asking = await build_row(console.api.sessions, console.user, status="needs_input", waiting_for="founder")
    async with transaction(console.api.sessions) as tx:
        ids = {"id": uuid.uuid4(), "build_id": asking}
        tx.session.add(Question(**ids, problem="Which colour?", tried=["none"], options=["Red", "Green"]))
    await console.open("/")
    needs = page.get_by_role("region", name="Needs you")
    await expect(needs.get_by_role("listitem")).to_have_count(1)
    await expect(needs).to_contain_text("Which colour?")
    running = page.get_by_role("region", name="Running")
    await expect(running.get_by_role("listitem")).to_have_count(2)
    await expect(running.get_by_text("Asleep")).to_be_visible()
    await expect(page.get_by_role("region", name="Projects").get_by_role("listitem")).to_have_count(3)
    await needs.get_by_role("link", name="Answer").click()
    await page.wait_for_url(f"{console.api.url}/builds/{asking}")


async def test_rolling_back_makes_a_new_version_from_version_1(console: Console) -> None:
    page = console.page
    project, [first, second] = await _versions(console, 2)
    await console.open(f"/projects/{project}")
    versions = page.get_by_role("region", name="Versions").get_by_role("listitem")
    await expect(versions.first).to_contain_text("Version 2")
    await expect(versions.first).to_contain_text("Current")
    await expect(versions.last).to_contain_text("14 tests")
    await versions.last.get_by_role("button", name="Start a new build from here").click()
    await expect(page.get_by_text("This goes back to version 1. What the build makes is version 3")).to_be_visible()
    await expect(page.get_by_label("Goal")).to_be_focused()
    await page.get_by_label("Goal").fill("Do it otherwise.")
    await page.get_by_role("button", name="Start the build").dblclick()
    await page.wait_for_url(re.compile("/builds/"))
    answer = await console.api.http.get(f"/v1/projects/{project}/builds", headers=console.headers)
    newest, *others = answer.json()["builds"]
    assert newest["started_from"] == {"build_id": str(first), "snapshot": 3, "version": 1}
    assert newest["goal"] == "Do it otherwise."
    assert sorted(each["id"] for each in others) == sorted([str(first), str(second)])


@pytest.mark.web
async def test_one_tab_hears_of_changes_for_all(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    await console.open("/")
    tabs = [console.page, await console.new_tab(), await console.new_tab()]
    for page in tabs:
        await expect(page.get_by_role("region", name="Running").get_by_text("Building")).to_be_visible()
    await wait_until(lambda: _streams(console) > 0)
    streams = _streams(console)  # each load of the only tab began one
    async with transaction(console.api.sessions) as tx:
        (await tx.session.get_one(Build, build)).status = "sleeping"
    await write_events(console.api.sessions, build, StatusEvent(status="sleeping"))
    for page in tabs:
        await expect(page.get_by_role("region", name="Running").get_by_text("Asleep")).to_be_visible()
    assert _streams(console) == streams
    await close_surely(console.page)
    await wait_until(lambda: _streams(console) == streams + 1)


@pytest.mark.web
async def test_a_project_is_renamed_archived_and_taken_out_again(console: Console) -> None:
    page = console.page
    project, _ = await _versions(console, 1)
    await console.open(f"/projects/{project}")
    await page.get_by_role("button", name="Rename").click()
    await page.get_by_label("Name", exact=True).fill("Shed")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Shed")
    await page.get_by_role("button", name="Archive the project").click()
    await page.get_by_role("dialog").get_by_role("button", name="Archive the project").click()
    await page.wait_for_url(f"{console.api.url}/")
    await page.get_by_role("button", name="Show archived projects").click()
    await page.get_by_role("region", name="Archived projects").get_by_role("link", name="Shed", exact=True).click()
    await expect(page.get_by_text("This project is archived")).to_be_visible()
    await expect(page.get_by_role("button", name="Start the build")).to_have_count(0)
    await page.get_by_role("button", name="Take it out of the archive").click()
    await expect(page.get_by_role("button", name="Start the build")).to_be_visible()


@pytest.mark.web
async def test_a_search_is_among_all_projects(console: Console) -> None:
    page = console.page
    async with transaction(console.api.sessions) as tx:
        await ensure_user(tx, console.user)
        for number in range(30):
            await create_project(tx, console.user, f"Project {number}", None, None)
    await console.open("/")
    cards = page.get_by_role("region", name="Projects").get_by_role("listitem")
    await expect(cards).to_have_count(24)
    await page.get_by_label("Search by name").fill("PROJECT 17")
    await expect(cards).to_have_count(1)
    await page.get_by_label("Search by name").fill("nothing <b>")
    await expect(page.get_by_text("No project is called “nothing <b>”.")).to_be_visible()
    await page.get_by_label("Search by name").fill("")
    await expect(cards).to_have_count(30)


@pytest.mark.web
async def test_a_list_that_can_not_be_read_again_stays_and_says_so(console: Console) -> None:
    page = console.page
    await build_row(console.api.sessions, console.user)
    await console.open("/")
    await expect(page.get_by_role("region", name="Running")).to_be_visible()
    console.expect_error("status of 502", "status of 503")
    html = {"status": 502, "content_type": "text/html", "body": "<h1>Bad gateway</h1>"}
    await page.route("**/v1/builds?*", lambda route: route.fulfill(**html))
    await expect(page.get_by_text("Cofounder answered with the status 502.")).to_be_visible()
    await expect(page.get_by_text("This list is as of")).to_be_visible()
    await expect(page.get_by_role("region", name="Running")).to_be_visible()
    await page.unroute("**/v1/builds?*")
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_text("This list is as of")).to_have_count(0)


@pytest.mark.web
async def test_a_newer_server_does_not_break_the_page(console: Console) -> None:
    """It has a status and enum values that the page does not know, new fields, and has dropped others."""
    page = console.page
    await build_row(console.api.sessions, console.user)

    async def as_newer(route: Route) -> None:
        body = json.loads(await (await route.fetch()).text())
        for build in body["builds"]:
            build |= {"status": "dreaming", "waiting_for": "the moon", "dependency": "weather", "reason": None}
            build["budget"] |= {"level": "purple"}
            for gone in ("agent_questions", "question", "phases_completed", "turn"):
                del build[gone]
            build["mood"] = {"new": True}
        await route.fulfill(json=body)

    await page.route("**/v1/builds?*", as_newer)
    await console.open("/")
    await expect(page.get_by_role("region", name="Running").get_by_text("dreaming")).to_be_visible()


@pytest.mark.web
async def test_what_people_write_is_shown_as_text(console: Console) -> None:
    page, text = console.page, "\n".join(MARKUP)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    brief = {"name": MARKUP[0], "problem": text, "features": MARKUP, MARKUP[1]: text, "audience": MARKUP[7]}
    async with transaction(console.api.sessions) as tx:
        await ensure_user(tx, console.user)
        project = await create_project(tx, console.user, MARKUP[1], brief, None)
        build = await insert_build(tx, BuildRequest(project.id, console.user, text))
        assert build is not None
        build.started_at = build.admitted_at = func.now()
        build.status, build.waiting_for = "needs_input", "founder"
        ids = {"id": uuid.uuid4(), "build_id": build.id}
        tx.session.add(Question(**ids, problem=text, tried=MARKUP, options=MARKUP[:3]))
    await console.open("/")
    await expect(page.get_by_role("region", name="Needs you")).to_contain_text(MARKUP[1])
    await expect(page.get_by_role("region", name="Needs you")).to_contain_text("␛[31mred")
    await console.open(f"/projects/{project.id}")
    await expect(page.get_by_role("heading", level=1)).to_have_text(MARKUP[1])
    await expect(page.get_by_role("region", name="Builds")).to_contain_text("{{7*7}} ${7*7}")
    await console.open(f"/projects/{project.id}/edit?step=review")
    for line in (*MARKUP[:7], MARKUP[9], "⟨202E⟩gnp.exe⟨202C⟩ ⟨200B⟩nothing", "␛[31mred␛[0m ␇"):
        await expect(page.get_by_role("main")).to_contain_text(line)
    await console.open(f"/projects/{project.id}/edit")
    await expect(page.get_by_label("Problem, and for whom")).to_have_value(re.compile(re.escape(MARKUP[5])))
    assert dialogs == []
    assert await page.evaluate("() => document.querySelectorAll('iframe, script:not([src]), main img').length") == 0
    assert await page.title() != "run"


async def _versions(console: Console, count: int) -> tuple[uuid.UUID, list[uuid.UUID]]:
    """A project with this many versions, and the builds that made them."""
    async with transaction(console.api.sessions) as tx:
        await ensure_user(tx, console.user)
        brief: dict[str, Any] = {"name": "Tool Library", "problem": "Drills.", "features": ["A list"]}
        project = await create_project(tx, console.user, "Tool Library", brief, None)
        builds = []
        for number in range(1, count + 1):
            build = await insert_build(tx, BuildRequest(project.id, console.user, f"Make version {number}."))
            assert build is not None
            await _make_ready(tx.session, build, number)
            builds.append(build.id)
        (await tx.session.get_one(Project, project.id)).last_build_version = count
        return project.id, builds


async def _make_ready(session: Any, build: Build, version: int) -> None:
    now = datetime.now(UTC)
    build.admitted_at = build.started_at = build.closed_at = now
    build.status, build.build_version, build.phases_completed = "ready", version, 2
    stored = {"archive_sha256": "a", "manifest_sha256": "b", "stored_at": now, "state": "stored"}
    keys = {"archive_key": f"a-{build.id}", "manifest_key": f"m-{build.id}", "archive_bytes": 10}
    ids = {"id": uuid.uuid4(), "build_id": build.id, "project_id": build.project_id, "claim": uuid.uuid4()}
    session.add(Snapshot(**ids, number=3, reason="gate", final=True, **keys, **stored))
    session.add(GateRun(build_id=build.id, number=1, snapshot_number=3, ended_at=now, findings=[], tests_run=14))
    session.add(Preview(build_id=build.id, state="closed", seq=1))
    await session.flush()


@pytest.mark.web
async def test_the_pages_have_nothing_against_them(console: Console) -> None:
    page = console.page
    await page.emulate_media(color_scheme="dark")
    await _are_accessible(console)


@pytest.mark.web
async def test_the_pages_have_nothing_against_them_on_a_phone(phone: Console) -> None:
    await _are_accessible(phone)


def _streams(console: Console) -> int:
    return len([each for each in console.requests if each.url.endswith("/v1/events")])


async def _are_accessible(console: Console) -> None:
    page = console.page
    await expect(page.get_by_role("heading", name="What would you like to build?")).to_be_visible()
    assert await violations(page) == []
    await console.open("/new")
    await page.get_by_role("button", name="Next").click()
    await expect(page.get_by_label("Name", exact=True)).to_be_focused()
    assert await violations(page) == []

    project, _ = await _versions(console, 2)
    await build_row(console.api.sessions, console.user, status="needs_input", waiting_for="founder")
    await build_row(console.api.sessions, console.user, status="sleeping")
    shown = {
        "/": "Needs you",
        f"/projects/{project}": "Versions",
        f"/projects/{project}/edit": "Change the idea",
        f"/projects/{project}/edit?step=interview": "A few questions",
        f"/projects/{project}/edit?step=review": "Read it once more",
    }
    for path, heading in shown.items():
        await console.open(path)
        await expect(page.get_by_role("heading", name=heading)).to_be_visible()
        assert (path, await violations(page)) == (path, [])
        assert (path, await scrolls_sideways(page)) == (path, False)
