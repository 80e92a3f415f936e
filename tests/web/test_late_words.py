"""What a founder says too late, too often, or to a build that sleeps or has ended; and names of any length."""

import uuid
from datetime import UTC, datetime

import pytest
from playwright.async_api import expect
from sqlalchemy import update

from db.models import Build, FounderMessage, Project
from db.steering import close_question
from db.transaction import transaction
from services.messages import MAX_UNREAD
from tests.harness.accessibility import scrolls_sideways
from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, write_feed
from tests.web.build_page import ask, box, change, receipts, sentence, status_chip

pytestmark = pytest.mark.web


async def _store_messages(console: Console, build: uuid.UUID, number: int) -> None:
    async with transaction(console.api.sessions) as tx:
        tx.session.add_all(
            FounderMessage(build_id=build, number=at, text=f"Words {at}.") for at in range(1, number + 1)
        )


async def test_a_message_is_taken_back_too_late(console: Console) -> None:
    page = console.page
    build = await build_row(console.api.sessions, console.user)
    await _store_messages(console, build, 1)
    await console.open(f"/builds/{build}")
    await expect(receipts(page)).to_contain_text("waits for the next turn")
    async with transaction(console.api.sessions) as tx:
        read = {"turn": 5, "read_at": datetime.now(UTC)}
        await tx.session.execute(update(FounderMessage).where(FounderMessage.build_id == build).values(**read))
    console.expect_error("status of 409")
    await receipts(page).get_by_role("button", name="Take back").click()
    await expect(receipts(page).get_by_role("alert")).to_contain_text("has read message 1 in turn 5")
    await expect(receipts(page)).to_contain_text("read at turn 5")
    await expect(receipts(page).get_by_role("button", name="Take back")).to_have_count(0)
    await expect(receipts(page).get_by_role("alert")).to_contain_text("Send another message")
    await box(page).fill("Green, then.")
    await page.get_by_role("button", name="Send").click()
    await expect(receipts(page)).to_contain_text("Green, then.")
    await expect(receipts(page).get_by_role("alert")).to_have_count(0)


async def test_too_many_messages_and_words_for_a_build_that_sleeps_or_has_ended(console: Console) -> None:
    page = console.page
    console.expect_error("status of 409")
    build = await build_row(console.api.sessions, console.user)
    await _store_messages(console, build, MAX_UNREAD)
    await console.open(f"/builds/{build}")
    await box(page).fill("One more.")
    await page.get_by_role("button", name="Send").click()
    alert = page.locator("form").get_by_role("alert")
    await expect(alert).to_contain_text(f"has not read your last {MAX_UNREAD} messages yet")
    await expect(box(page)).to_have_value("One more.")

    asleep = await build_row(console.api.sessions, console.user)
    await change(console, asleep, status="sleeping")
    await console.open(f"/builds/{asleep}")
    await box(page).fill("In the morning: blue.")
    await page.get_by_role("button", name="Send").click()
    await expect(receipts(page)).to_contain_text("waits until it wakes")

    ended = await build_row(console.api.sessions, console.user)
    await console.open(f"/builds/{ended}")
    await box(page).fill("Are you there?")
    async with transaction(console.api.sessions) as tx:
        closed = {"status": "failed", "closed_at": datetime.now(UTC)}
        await tx.session.execute(update(Build).where(Build.id == ended).values(**closed))
    await page.get_by_role("button", name="Send").click()
    await expect(alert).to_contain_text("has ended")
    await expect(box(page)).to_have_value("Are you there?")


async def test_a_build_is_stopped_while_its_question_is_open(console: Console) -> None:
    page = console.page
    build = await build_row(console.api.sessions, console.user)
    await write_feed(console.api.sessions, build, feed_lines(40))
    await console.open(f"/builds/{build}")
    await ask(console, build, "Which colour?")
    question = page.get_by_role("region", name="The agent needs you")
    await question.get_by_label("In your own words").check()
    await question.get_by_role("textbox", name="Your own words").fill("Blue")
    async with transaction(console.api.sessions) as tx:
        await close_question(tx, build)
    now = datetime.now(UTC)
    stopped = {"status": "cancelled", "waiting_for": None, "reason": None}
    await change(console, build, **stopped, closed_at=now, cancel_requested_at=now)
    await expect(status_chip(page, "Stopped")).to_be_visible()
    await expect(sentence(page)).to_contain_text("You stopped it.")
    await expect(question).to_have_count(0)
    await expect(box(page)).to_have_count(0)
    await expect(page.get_by_text("went on without this answer")).to_have_count(0)


NAMES = ("W" * 120, "مكتبة الأدوات للجيران " * 5, "近所の人のための道具の図書館" * 8, "👩‍👩‍👧‍👦" * 15, "word " * 24)


@pytest.mark.parametrize("name", NAMES, ids=["one word", "arabic", "japanese", "emoji", "words"])
async def test_a_long_name_breaks_no_page(console: Console, phone: Console, name: str) -> None:
    for each in (console, phone):
        build = await build_row(each.api.sessions, each.user, goal=name * 3)
        async with transaction(each.api.sessions) as tx:
            project = (await tx.session.get_one(Build, build)).project_id
            await tx.session.execute(update(Project).where(Project.id == project).values(name=name.strip()))
        await write_feed(each.api.sessions, build, feed_lines(40))
        await ask(each, build, name * 4)
        for path in (f"/builds/{build}", f"/builds/{build}?tab=details", f"/projects/{project}", "/", "/usage"):
            await each.open(path)
            await expect(each.page.locator("h1").first).to_be_visible()
            await expect(each.page.get_by_role("status", name="Loading")).to_have_count(0)
            assert (path, await scrolls_sideways(each.page)) == (path, False)
