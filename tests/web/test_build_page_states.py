"""The page of a build in each of its states: what it says, for whom, and how well everyone can use it."""

import re
import uuid
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

import pytest
from playwright.async_api import Browser, Page, expect

from db.models import Build, Membership, Project
from db.transaction import transaction
from db.users import ensure_user
from domain.events import NarrationEvent, PhaseCompletedEvent, StatusEvent
from tests.harness.accessibility import scrolls_sideways, violations
from tests.harness.api_server import RunningApi, for_user
from tests.harness.console import DESKTOP, Console, console_of
from tests.harness.feeds import build_row, feed_lines, phase_lines, write_events, write_feed
from tests.harness.scripts import PRODUCT, bash, hold, steps
from tests.harness.worker import FOUR_TURNS_A_DAY, WorkerHarness, poor_founder
from tests.web.build_page import ask, box, change, receipts, sentence, status_chip
from tests.workflows.scenarios import release_command

pytestmark = pytest.mark.web

_NOW = datetime.now(UTC)
_TOMORROW = (_NOW + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)

_STATES: list[tuple[dict[str, Any], str]] = [
    ({"status": "queued", "started_at": None, "admitted_at": None}, "It starts in a moment."),
    ({"status": "starting"}, "Opening a sandbox"),
    ({"status": "code"}, "Then I change it"),
    ({"status": "checks"}, "A fresh sandbox installs the product"),
    (
        {"status": "sleeping", "wakes_at": _TOMORROW, "reason": "Not enough is left."},
        "Not enough is left. It goes on at",
    ),
    ({"status": "waiting", "dependency": "model"}, "The AI model does not answer."),
    (
        {"status": "needs_input", "waiting_for": "operator", "reason": "The model refuses."},
        "The model refuses. There is",
    ),
    ({"status": "needs_input", "waiting_for": "store"}, "It tries again when you wake it."),
    ({"status": "needs_input", "waiting_for": "kill_switch"}, "It continues by itself when they are switched on"),
    ({"status": "needs_input", "waiting_for": "founder", "reason": "150 calls are used up."}, "150 calls are used up."),
    ({"status": "ready", "closed_at": _NOW, "build_version": 3}, "Version 3 passed its checks."),
    ({"status": "failed", "closed_at": _NOW, "reason": "It broke."}, "It broke."),
    (
        {"status": "cancelled", "closed_at": _NOW, "cancel_requested_at": _NOW},
        "You stopped it.",
    ),
]


async def _shown(page: Page) -> None:
    await expect(page.locator("h1")).to_be_visible()
    await expect(page.get_by_role("region", name="Feed")).to_be_visible()


@pytest.mark.parametrize(
    ("theme", "width", "height"), [("light", 1440, 900), ("dark", 1440, 900), ("light", 820, 1180), ("dark", 390, 844)]
)
async def test_each_state_has_its_sentence_and_everyone_can_use_it(
    console: Console, theme: Literal["light", "dark"], width: int, height: int
) -> None:
    console.expect_error("status of 404")  # the ready one has no preview
    page = console.page
    await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    await page.set_viewport_size({"width": width, "height": height})
    found: dict[str, Any] = {}
    for columns, expected in _STATES:
        build = await build_row(console.api.sessions, console.user, **columns)
        if columns["status"] not in ("queued", "starting"):
            await write_feed(console.api.sessions, build, feed_lines(120))
            event = StatusEvent.model_validate(columns | {"wakes_at": str(columns.get("wakes_at", ""))})
            await write_events(console.api.sessions, build, event)
        await console.open(f"/builds/{build}")
        await _shown(page)
        await expect(sentence(page)).to_contain_text(expected)
        if broken := await violations(page):
            found[f"{columns['status']} {columns.get('waiting_for')}"] = broken
    assert found == {}


async def test_a_phone_and_a_zoom_of_400_percent_scroll_one_way_only(phone: Console) -> None:
    build = await build_row(phone.api.sessions, phone.user)
    await write_feed(phone.api.sessions, build, feed_lines(200))
    await ask(phone, build, "Nothing listens at port 8000, although the server says that it has started. " * 3)
    for width, height in ((390, 844), (360, 640), (320, 256)):
        await phone.page.set_viewport_size({"width": width, "height": height})
        for tab in ("", "?tab=preview", "?tab=changes", "?tab=files"):
            await phone.open(f"/builds/{build}{tab}")
            await expect(phone.page.locator("h1")).to_be_visible()
            assert not await scrolls_sideways(phone.page), (width, height, tab)
        await phone.open(f"/builds/{build}")
        answer = phone.page.get_by_role("button", name="Answer")
        await answer.scroll_into_view_if_needed()
        await expect(answer).to_be_in_viewport()
    await phone.page.set_viewport_size({"width": 390, "height": 844})
    await _shown(phone.page)
    assert await violations(phone.page) == []


async def test_a_whole_build_by_touch(phone: Console, agent: WorkerHarness) -> None:
    build = await agent.start(phone.user, script=steps([hold()], [bash(PRODUCT)]))
    page = phone.page
    await phone.open(f"/builds/{build}")
    await expect(page.get_by_text("On it.").first).to_be_visible()
    await box(page).tap()
    await box(page).fill("Leave the login out.")
    await page.get_by_role("button", name="Send").tap()
    await expect(receipts(page)).to_contain_text("waits for the next turn")
    parts = page.get_by_role("navigation", name="Parts of the page")
    for part in ("Changes", "More", "Preview", "Feed"):
        await parts.get_by_role("button", name=part).tap()
        await expect(parts.get_by_role("button", name=part)).to_have_attribute("aria-current", "page")
        assert not await scrolls_sideways(page)
    await release_command(agent, build)
    await expect(receipts(page)).to_contain_text("read at turn 2")
    await expect(sentence(page)).to_contain_text("Version 1 passed its checks")
    await page.get_by_role("button", name="Show the phases").tap()
    await expect(page.get_by_role("dialog", name="Phases")).to_contain_text("A small product")
    await page.get_by_role("button", name="Close").tap()
    await page.get_by_role("button", name="Open the product").tap()
    await expect(parts.get_by_role("button", name="Preview")).to_have_attribute("aria-current", "page")


async def test_going_back_and_undoing_it(console: Console, agent: WorkerHarness) -> None:
    commit = "([ -d .git ] || git init -q -b main); git -c user.name=c -c user.email=c@d.org commit -q --allow-empty -m"
    turns = [[bash(f"{commit} One")], [bash(f"{commit} Two")], [hold()], [hold()], [bash(PRODUCT)]]
    build = await agent.start(console.user, script=steps(*turns))
    page = console.page
    await console.open(f"/builds/{build}")
    phases = page.get_by_role("list", name="Phases")
    await expect(phases).to_contain_text("Two")
    await phases.get_by_role("button", name="Go back to here: One").click()
    dialog = page.get_by_role("dialog", name="Put the workspace back to phase 1, “One”?")
    await expect(dialog).to_contain_text("kept as a snapshot first")
    await dialog.get_by_role("button", name="Go back").click()
    await expect(page.get_by_text("goes back to phase 1, “One” between two turns")).to_be_visible()

    console.expect_error("status of 409")
    await phases.get_by_role("button", name="Go back to here: Two").click()
    again = page.get_by_role("dialog", name="Put the workspace back to phase 2, “Two”?")
    await again.get_by_role("button", name="Go back").click()
    await expect(again.get_by_role("alert")).to_contain_text("about to be restored")
    await again.get_by_role("button", name="Keep as it is").click()

    await release_command(agent, build)
    await expect(page.get_by_text("The workspace is back at phase 1, “One”.")).to_be_visible()
    undo = page.get_by_role("button", name="Undo: go back to snapshot")
    kept = (await undo.inner_text()).rsplit(" ", 1)[1]
    await undo.click()
    await page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    await expect(page.get_by_text(f"goes back to snapshot {kept} between two turns")).to_be_visible()
    await release_command(agent, build)
    await expect(page.get_by_text(f"The workspace is back at snapshot {kept}.")).to_be_visible()
    await agent.finished(build)


async def test_screen_readers_hear_of_a_change_at_most_every_five_seconds(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    await write_feed(console.api.sessions, build, feed_lines(100))
    page = console.page
    await console.open(f"/builds/{build}")
    await _shown(page)
    await page.evaluate("""() => {
        window.heard = [];
        const line = document.querySelector("[data-announcement]");
        const note = () => window.heard.push([performance.now(), line.innerText]);
        new MutationObserver(note).observe(line, { childList: true, characterData: true, subtree: true });
    }""")
    for status in ("checks", "code", "checks", "code", "checks"):
        events = [NarrationEvent(text=f"Sentence {number}.", claim="c") for number in range(200)]
        await write_events(console.api.sessions, build, *events, turn=20)
        await change(console, build, status=status)
        await expect(page.get_by_text("Building" if status == "code" else "Checking").first).to_be_visible()
    await expect(page.locator("[data-announcement]")).to_contain_text("Checking. A fresh sandbox")
    heard = await page.evaluate("() => window.heard")
    assert heard, "nothing was announced"
    assert all(later[0] - earlier[0] > 4_900 for earlier, later in pairwise(heard))
    assert not any("Sentence" in text for _, text in heard)
    feed = page.get_by_role("region", name="Feed")
    assert await feed.locator("[aria-live], [role=log], [role=status]").count() == 0


async def test_a_viewer_sees_no_action_that_is_refused(console: Console) -> None:
    owner = f"founder-{uuid.uuid4()}"
    build = await build_row(console.api.sessions, owner)
    await write_feed(console.api.sessions, build, [*feed_lines(40), *phase_lines(1, 5)])
    async with transaction(console.api.sessions) as tx:
        await ensure_user(tx, console.user)
        row = await tx.session.get_one(Build, build)
        project = await tx.session.get_one(Project, row.project_id)
        tx.session.add(Membership(org_id=project.org_id, user_id=console.user, role="viewer"))
    page = console.page
    await console.open(f"/builds/{build}")
    await expect(page.get_by_text("You can watch this build.")).to_be_visible()
    await expect(box(page)).to_have_count(0)
    await expect(page.get_by_role("button", name="Go back to here")).to_have_count(0)
    await page.get_by_role("button", name="Actions of this build").click()
    await expect(page.get_by_role("menuitem", name="Copy the build's id")).to_be_visible()
    await expect(page.get_by_role("menuitem", name="Stop the build")).to_have_count(0)


async def test_single_keys_can_be_switched_off(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    await write_events(console.api.sessions, build, PhaseCompletedEvent(phase=1, commit="a" * 40, title="One"))
    page = console.page
    await console.open(f"/builds/{build}")
    await _shown(page)
    await page.keyboard.press("?")
    await page.get_by_role("checkbox", name="Use single keys").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("s")
    await expect(box(page)).not_to_be_focused()
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.get_by_role("button", name="Actions of this build").click()
    await page.get_by_role("menuitem", name="Keys").click()
    await page.get_by_role("checkbox", name="Use single keys").check()
    await page.keyboard.press("Escape")
    await page.keyboard.press("s")
    await expect(box(page)).to_be_focused()


async def test_a_sleeping_build_is_woken_without_money_and_with_it(
    web_api: RunningApi, web_browser: Browser, agent: WorkerHarness
) -> None:
    founder, _ = await poor_founder(agent, FOUR_TURNS_A_DAY)
    echoes = [[bash(f"echo {number}")] for number in range(4)]
    build = await agent.start(founder, script=steps(*echoes, [bash(PRODUCT)]), max_nights=7)
    async with console_of(web_browser, web_api, founder, **DESKTOP) as console:
        page = console.page
        await console.open(f"/builds/{build}")
        await expect(status_chip(page, "Asleep")).to_be_visible()
        night = re.compile("^Not enough .* It goes on at 00:00 UTC.*Night 1 of at most 7")
        await expect(sentence(page)).to_contain_text(night)
        await expect(sentence(page)).to_contain_text("Your work is saved as snapshot")
        await expect(box(page)).to_have_attribute("placeholder", "Tell the agent something. It reads it when it wakes.")
        await page.get_by_role("button", name="Wake it now").click()
        await expect(sentence(page)).to_contain_text("Checked again: not enough of today's budget is left")

        amount = {"amount": 10_000_000}
        topped = await web_api.http.post("/v1/account/top-ups", json=amount, headers=for_user(founder))
        assert topped.status_code == 200, topped.text
        await expect(status_chip(page, "Ready")).to_be_visible()
        await expect(page.get_by_role("list", name="Phases")).to_contain_text("Asleep for")


async def test_a_new_build_begins_where_an_ended_one_was(console: Console, agent: WorkerHarness) -> None:
    build = await agent.start(console.user, script=steps([bash(PRODUCT)]))
    await agent.finished(build)
    goal = f"Make it blue. [{uuid.uuid4().hex}]"
    await agent.rehearse("scripts", {"match": goal, "script": steps([bash("cat server.py"), hold()])})
    page = console.page
    await console.open(f"/builds/{build}")
    await page.get_by_role("button", name="New build from here: A small product").click()
    dialog = page.get_by_role("dialog", name="Start a new build from phase 1, “A small product”?")
    await dialog.get_by_role("textbox", name="What should the new build do?").fill(goal)
    await dialog.get_by_role("button", name="Start the build").click()
    await expect(page).not_to_have_url(re.compile(str(build)))
    await expect(page.get_by_text(goal)).to_be_visible()
    await page.get_by_role("button", name="Actions of this build").click()
    await page.get_by_role("menuitem", name="Stop the build").click()
    await page.get_by_role("dialog").get_by_role("button", name="Stop the build").click()
    await expect(status_chip(page, "Stopped")).to_be_visible()
    await expect(page.get_by_role("button", name="Start again from here")).to_be_visible()


async def test_the_part_on_the_right_is_resized_and_hidden_by_keyboard(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    page = console.page
    await console.open(f"/builds/{build}")
    handle = page.get_by_role("separator", name="Width of preview and files")
    await handle.focus()
    await page.keyboard.press("ArrowLeft")
    await expect(handle).to_have_attribute("aria-valuenow", "42")
    await page.reload()
    await expect(handle).to_have_attribute("aria-valuenow", "42")
    await page.get_by_role("button", name="Hide preview and files").press("Enter")
    await expect(page.get_by_role("tab")).to_have_count(0)
    await page.keyboard.press("2")
    await expect(page.get_by_role("tab", name="Changes")).to_have_attribute("aria-selected", "true")
