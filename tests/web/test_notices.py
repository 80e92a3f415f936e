"""What a browser tells of a build whose page is hidden: each change once, as text. Notification is a stand-in."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.async_api import Page, expect
from sqlalchemy import update

from db.models import Build, Project, Question
from db.transaction import transaction
from domain.events import MessageEvent, StatusEvent
from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, write_events, write_feed
from tests.harness.hostile_texts import MARKDOWN, NAME, SHOWN_NAME, TEXTS, UNSEEN
from tests.harness.wait import wait_until
from tests.web.build_page import ask, change, status_chip

pytestmark = pytest.mark.web

HIDDEN = 'Object.defineProperty(document, "hidden", { get: () => true });'
"""Chromium without a screen shows all tabs: a page is told so that it is hidden."""

_STAND_IN = """
    if (location.protocol !== "about:") localStorage.setItem("cofounder-notify", "on");
    window.told = [];
    window.Notification = class {
        static permission = "granted";
        static requestPermission = async () => "granted";
        constructor(title, options) { window.told.push({ title, ...options }); window.last = this; }
        close() { window.isClosed = true; }
    };
    window.focus = () => { window.focused = true; };
"""

_SETTLED_MS = 1_500
"""Milliseconds after which a page has told what it would tell twice. Under load it is told less, never more."""


async def _open(console: Console, build: uuid.UUID, *, hidden: bool = True) -> Page:
    """Open the build's page in a tab, and wait for its feed."""
    page = await console.context.new_page()
    if hidden:
        await page.add_init_script(HIDDEN)
    await page.goto(f"{console.api.url}/builds/{build}")
    await expect(page.get_by_role("region", name="Feed").locator("[data-row]").first).to_be_visible()
    return page


async def _told(*tabs: Page) -> list[dict[str, Any]]:
    return [each for tab in tabs for each in await tab.evaluate("() => window.told")]


async def _wait_for_notices(tabs: list[Page], number: int) -> None:
    async def are_told() -> bool:
        return len(await _told(*tabs)) >= number

    await wait_until(are_told)


async def _close_question(console: Console, build: uuid.UUID) -> None:
    async with transaction(console.api.sessions) as tx:
        closed = update(Question).where(Question.build_id == build).values(closed_at=datetime.now(UTC))
        await tx.session.execute(closed)


async def _sleep(console: Console, build: uuid.UUID, reason: str) -> None:
    """Let the build sleep as its workflow does: the event has the time in the form of its activity."""
    wakes_at = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    async with transaction(console.api.sessions) as tx:
        values = {"status": "sleeping", "reason": reason, "wakes_at": wakes_at}
        await tx.session.execute(update(Build).where(Build.id == build).values(**values))
    event = StatusEvent(status="sleeping", reason=reason, wakes_at=wakes_at.isoformat())
    await write_events(console.api.sessions, build, event)


async def test_each_change_is_told_once_however_many_pages_are_hidden(console: Console) -> None:
    sessions = console.api.sessions
    await console.context.add_init_script(_STAND_IN)
    build = await build_row(sessions, console.user)
    await write_feed(sessions, build, feed_lines(30))
    tabs = [await _open(console, build) for _ in range(2)]

    await ask(console, build, "Which colour?")
    await _wait_for_notices(tabs, 1)
    await _close_question(console, build)
    await change(console, build, status="code", waiting_for=None, reason=None)
    for tab in tabs:
        await expect(status_chip(tab, "Building")).to_be_visible()

    await _sleep(console, build, "Not enough is left.")
    await _wait_for_notices(tabs, 2)
    await write_events(
        sessions, build, MessageEvent(number=1, text="Good night.")
    )  # the feed is ahead of the row again
    for tab in tabs:
        await expect(tab.get_by_text("Good night.").first).to_be_visible()
        await tab.wait_for_timeout(_SETTLED_MS)
    await change(console, build, status="code", reason=None)
    for tab in tabs:
        await expect(status_chip(tab, "Building")).to_be_visible()

    await change(console, build, status="ready", closed_at=datetime.now(UTC), build_version=1)
    await _wait_for_notices(tabs, 3)
    broken = await build_row(sessions, console.user)
    await write_feed(sessions, broken, feed_lines(30))
    tabs += [await _open(console, broken)]
    await change(console, broken, status="failed", reason="It broke.", closed_at=datetime.now(UTC))
    await _wait_for_notices(tabs, 4)
    for tab in tabs:
        await tab.wait_for_timeout(_SETTLED_MS)
    told = await _told(*tabs)
    name, other = [await tab.locator("h1").inner_text() for tab in tabs[1:]]
    assert sorted((each["title"], each["body"]) for each in told) == sorted(
        [
            (f"{name} needs you", "Which colour?"),
            (f"{name} is asleep", "Not enough is left."),
            (f"{name} is ready", ""),
            (f"{other} has stopped with an error", "It broke."),
        ]
    )
    assert len({each["tag"] for each in told}) == 4
    console.expect_error("status of 404")  # the ready one has no preview

    # A page that is opened later knows of it.
    later = await _open(console, broken)
    await later.wait_for_timeout(_SETTLED_MS)
    assert await _told(later) == []
    await tabs[-1].evaluate("() => window.last.onclick()")
    assert await tabs[-1].evaluate("() => [window.focused, window.isClosed]") == [True, True]


async def test_a_change_that_someone_sees_is_not_told(console: Console) -> None:
    await console.context.add_init_script(_STAND_IN)
    build = await build_row(console.api.sessions, console.user)
    await write_feed(console.api.sessions, build, feed_lines(30))
    tabs = [await _open(console, build, hidden=False), await _open(console, build)]
    await change(console, build, status="failed", reason="It broke.", closed_at=datetime.now(UTC))
    for tab in tabs:
        await expect(status_chip(tab, "Stopped with an error")).to_be_visible()
        await tab.wait_for_timeout(_SETTLED_MS)
    assert await _told(*tabs) == []


async def test_a_notice_is_plain_text(console: Console) -> None:
    await console.context.add_init_script(_STAND_IN)
    texts = [*TEXTS, *MARKDOWN, *(raw for raw, _ in UNSEEN)]
    marked = [*TEXTS, *MARKDOWN, *(mark for _, mark in UNSEEN)]
    build = await build_row(console.api.sessions, console.user)
    await write_feed(console.api.sessions, build, feed_lines(5))
    async with transaction(console.api.sessions) as tx:
        project = (await tx.session.get_one(Build, build)).project_id
        await tx.session.execute(update(Project).where(Project.id == project).values(name=NAME))
    tab = await _open(console, build)
    shown: list[str] = []
    # Most notices hold only the beginning of their text, so the corpus comes in pieces.
    for at in range(0, len(texts), 4):
        await ask(console, build, "\n".join(texts[at : at + 4]))
        await _wait_for_notices([tab], len(shown) + 1)
        await _close_question(console, build)
        shown.append("\n".join(marked[at : at + 4])[:200])
    told = await _told(tab)
    assert {each["title"] for each in told} == {f"{SHOWN_NAME} needs you"}
    assert [each["body"] for each in told] == shown
