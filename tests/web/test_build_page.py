"""The page of a build: watch it, tell its agent something, answer its question, go back, and stop it."""

import asyncio
import contextlib
import json
import re
import uuid
from datetime import UTC, datetime

import pytest
from playwright.async_api import Error, Route, expect
from sqlalchemy import update

from db.models import Question
from db.transaction import transaction
from domain.events import ResumedEvent
from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, write_events, write_feed
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.worker import WorkerHarness
from tests.web.build_page import ask, box, change, receipts, sentence, status_chip
from tests.web.feed_page import FeedOnPage
from tests.workflows.scenarios import release_command


async def test_a_build_is_watched_and_steered_by_keyboard_alone(console: Console, agent: WorkerHarness) -> None:
    build = await agent.start(console.user, script=steps([hold()], [bash(PRODUCT)]))
    page = console.page
    await console.open(f"/builds/{build}")
    await expect(page.get_by_text("On it.").first).to_be_visible()

    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("6")
    await expect(page.get_by_role("tab", name="Details")).to_have_attribute("aria-selected", "true")
    await page.keyboard.press("s")
    await expect(box(page)).to_be_focused()
    await page.keyboard.type("Use ? as the title, 1 of 6.")
    await page.keyboard.press("Control+Enter")
    await expect(receipts(page)).to_contain_text("waits for the next turn")
    await expect(box(page)).to_have_value("")
    await page.keyboard.press("Escape")

    await release_command(agent, build)
    await expect(receipts(page)).to_contain_text("read at turn 2")
    await expect(status_chip(page, "Ready")).to_be_visible()
    await expect(sentence(page)).to_have_text("Version 1 passed its checks: 1 test, and its pages answer.")
    await expect(page).to_have_title("Ready: " + (await page.locator("h1").inner_text()) + " · Cofounder")
    phases = page.get_by_role("list", name="Phases")
    await expect(phases).to_contain_text("A small product")
    await expect(phases).to_contain_text("passed, 1 test")
    await expect(page.locator("[data-announcement]")).to_contain_text("Ready. Version 1")
    await page.keyboard.press("[")
    await expect(page).to_have_url(re.compile("#e[0-9]+$"))
    await expect(page.get_by_role("link", name="Download", exact=True)).to_be_visible()


@pytest.mark.web
async def test_a_message_is_taken_back_before_it_is_read(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    await write_feed(console.api.sessions, build, feed_lines(60))
    page = console.page
    await console.open(f"/builds/{build}")
    for text in ("Leave the login out.", "Blue, please."):
        await box(page).fill(text)
        await page.get_by_role("button", name="Send").click()
        await expect(receipts(page)).to_contain_text(text)
    first, second = receipts(page).get_by_role("listitem").all(), "Blue, please."
    await (await first)[1].get_by_role("button", name="Take back").click()
    await expect(box(page)).to_have_value(second)
    await expect(receipts(page)).not_to_contain_text(second)

    await page.reload()  # the draft is this tab's
    await expect(box(page)).to_have_value(second)
    stored = await console.api.http.get(f"/v1/builds/{build}/messages", headers=console.headers)
    assert [each["withdrawn_at"] is None for each in stored.json()["messages"]] == [True, False]


async def test_a_question_is_answered_in_another_tab(console: Console) -> None:
    console.expect_error("status of 409")
    build = await build_row(console.api.sessions, console.user)
    await console.open(f"/builds/{build}")
    other = await console.new_tab(f"/builds/{build}")
    await box(console.page).fill("half a sentence")
    question = await ask(console, build, "Nothing listens at port 8000.")
    for page in (console.page, other):
        await expect(page.get_by_role("region", name="The agent needs you")).to_contain_text("port 8000")
        await expect(page.get_by_role("alert")).to_have_count(1)
        await expect(page).to_have_title(re.compile("^Needs you: "))
    await expect(box(console.page)).to_be_focused()  # the question has not taken the focus

    # Here it is answered, and there someone had chosen something else already.
    await other.get_by_label("Commit what works").check()
    await console.page.get_by_role("button", name="Go to the question").click()
    await console.page.get_by_label("In your own words").check()
    await console.page.get_by_role("textbox", name="Your own words").fill("It is port 3000.")
    await console.page.keyboard.press("Control+Enter")
    await expect(console.page.locator("[data-announcement]")).to_contain_text("Answered.")
    await other.get_by_role("button", name="Answer").click()
    await expect(other.get_by_role("region", name="The agent needs you")).to_contain_text(
        "answered in another window: “It is port 3000.”"
    )
    async with transaction(console.api.sessions) as tx:
        await tx.session.execute(update(Question).where(Question.id == question).values(closed_at=datetime.now(UTC)))
    await change(console, build, status="code", waiting_for=None, reason=None)
    await expect(other.get_by_role("region", name="The agent needs you")).to_have_count(0)
    await expect(other.get_by_text("answered in another window")).to_be_visible()


@pytest.mark.web
async def test_a_message_on_a_dead_line_is_sent_once(console: Console) -> None:
    console.expect_error("ERR_INTERNET_DISCONNECTED", "Failed to load resource", "Failed to fetch")
    build = await build_row(console.api.sessions, console.user)
    await console.open(f"/builds/{build}")
    page = console.page
    await expect(box(page)).to_be_visible()
    await console.context.set_offline(True)
    await box(page).fill("Are you there?")
    await page.keyboard.press("Control+Enter")
    await expect(page.get_by_text("Not sent yet.")).to_be_visible()
    await expect(box(page)).to_have_value("Are you there?")
    await console.context.set_offline(False)
    await expect(receipts(page)).to_contain_text("Are you there?")
    stored = await console.api.http.get(f"/v1/builds/{build}/messages", headers=console.headers)
    assert len(stored.json()["messages"]) == 1


@pytest.mark.web
async def test_only_the_text_that_was_sent_is_sent_again(console: Console) -> None:
    console.expect_error("ERR_INTERNET_DISCONNECTED", "Failed to load resource", "Failed to fetch")
    build = await build_row(console.api.sessions, console.user)
    bodies: list[str] = []

    async def lose_two_answers(route: Route) -> None:
        if route.request.method != "POST":
            await route.continue_()
            return
        bodies.append(route.request.post_data or "")
        if len(bodies) > 2:
            await route.continue_()
            return
        await route.fetch()
        await route.fulfill(status=502, body="Bad gateway")

    await console.open(f"/builds/{build}")
    page = console.page
    await page.route(re.compile(r"/messages$"), lose_two_answers)
    await box(page).fill("One")
    await page.keyboard.press("Control+Enter")
    await expect(page.get_by_text("Not sent yet.")).to_be_visible()
    await box(page).fill("One, and")
    await expect(page.get_by_text("Not sent yet.")).to_have_count(0)
    await console.context.set_offline(True)
    await console.context.set_offline(False)
    await box(page).fill("One")
    await page.keyboard.press("Control+Enter")
    await expect(page.get_by_text("Not sent yet.")).to_be_visible()
    await expect(box(page)).to_have_value("", timeout=30_000)
    assert [json.loads(body)["text"] for body in bodies] == ["One", "One", "One"]
    stored = await console.api.http.get(f"/v1/builds/{build}/messages", headers=console.headers)
    assert [message["text"] for message in stored.json()["messages"]] == ["One"]


@pytest.mark.web
async def test_stopping_asks_first(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    await console.open(f"/builds/{build}")
    page = console.page
    for answer in ("Let it go on", "Stop the build"):
        await page.get_by_role("button", name="Actions of this build").click()
        await page.get_by_role("menuitem", name="Stop the build").click()
        await page.get_by_role("dialog", name="Stop this build?").get_by_role("button", name=answer).click()
        await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(sentence(page)).to_have_text("It is stopping. Its work is saved first.")


@pytest.mark.web
async def test_wrapping_up_asks_first(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    await console.open(f"/builds/{build}")
    page = console.page
    await page.get_by_role("button", name="Wrap up now").click()
    dialog = page.get_by_role("dialog", name="Wrap up now?")
    await dialog.get_by_role("button", name="Wrap up now").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(page.locator("[data-announcement]")).to_have_text("It wraps up when the agent's current turn ends.")


@pytest.mark.web
async def test_the_agents_own_question_holds_nothing_up(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    async with transaction(console.api.sessions) as tx:
        asked = Question(id=uuid.uuid4(), build_id=build, problem="Which colour?", tried=[], options=["Blue", "Red"])
        asked.tool_use_id, asked.default_option, asked.closed_at = "toolu_1", "Blue", datetime.now(UTC)
        tx.session.add(asked)
    page = console.page
    await console.open(f"/builds/{build}")
    await expect(page.get_by_role("alert")).to_have_count(0)
    await page.get_by_role("button", name="1 question of the agent").click()
    card = page.get_by_role("region", name="The agent asks")
    await expect(card).to_contain_text("It goes on with “Blue” until you answer.")
    await card.get_by_label("Red").check()
    await card.get_by_role("button", name="Answer").click()
    await expect(card).to_have_count(0)
    await expect(status_chip(page, "Building")).to_be_visible()


@pytest.mark.web
async def test_what_a_restored_workspace_has_lost_is_said_until_it_is_hidden(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    lost = "the sandbox was replaced: the workspace was restored from snapshot 1"
    resumed = ResumedEvent(reason="its sandbox was lost", continuing_from="phase 1, turn 7", changes=[lost])
    await console.open(f"/builds/{build}")
    page = console.page
    await expect(box(page)).to_be_visible()
    await write_events(console.api.sessions, build, resumed)
    notice = page.locator("p", has_text="The workspace was restored").locator("..")
    await expect(notice).to_contain_text("It goes on from phase 1, turn 7.")
    await expect(notice).to_contain_text(lost)
    await notice.get_by_role("button", name="Hide").click()
    await expect(page.get_by_text("The workspace was restored", exact=True)).to_have_count(0)
    await page.reload()
    await expect(box(page)).to_be_visible()
    await expect(page.get_by_text("The workspace was restored", exact=True)).to_have_count(0)


@pytest.mark.web
async def test_an_event_that_comes_before_the_first_answer_is_not_lost(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    resumed = ResumedEvent(reason="its sandbox was lost", continuing_from="phase 1, turn 7", changes=["Its port."])
    page = console.page
    is_written = asyncio.Event()

    async def answer_late(route: Route) -> None:
        response = await route.fetch()
        await is_written.wait()
        with contextlib.suppress(Error):  # the page may have asked again meanwhile
            await route.fulfill(response=response)

    await page.route(re.compile("past-events.*type=resumed"), answer_late, times=1)
    await console.open(f"/builds/{build}")
    await expect(box(page)).to_be_visible()
    feed = FeedOnPage(page)
    await feed.has(await write_events(console.api.sessions, build, resumed))
    is_written.set()
    await expect(page.get_by_text("It goes on from phase 1, turn 7.", exact=True)).to_be_visible()


@pytest.mark.web
async def test_a_build_of_someone_else_is_not_there(console: Console) -> None:
    console.expect_error("status of 404")
    build = await build_row(console.api.sessions, f"founder-{uuid.uuid4()}")
    await console.open(f"/builds/{build}")
    await expect(console.page.get_by_text("There is no such build")).to_be_visible()
