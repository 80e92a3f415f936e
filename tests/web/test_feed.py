"""The feed of a build's page: every event has its row, however long the feed is, and nothing moves under the reader."""

import json
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Locator, expect
from sqlalchemy import func, insert, select, update

from clients.object_store import ObjectStore
from db.models import Build, Event, Message, ToolCall, Turn
from db.session import Sessions
from db.transaction import transaction
from domain.events import (
    EVENTS,
    MessageEvent,
    NarrationEvent,
    StatusEvent,
    ToolDoneEvent,
    ToolStartedEvent,
    TurnWithdrawnEvent,
)
from domain.tool_output import ImageRef, bound, render_result
from tests.golden.states import FEEDS, events_of
from tests.harness.console import Console
from tests.harness.feeds import build_row, feed_lines, write_events, write_feed
from tests.harness.wait import wait_until
from tests.web.feed_page import NODES_MOST, FeedOnPage, open_feed

HEAP_MOST = 40 * 2**20
"""Bytes of JavaScript objects after a collection, with 10,000 events loaded."""

WEBP = bytes.fromhex("524946461a000000574542505650384c0d0000002f00000010071011118888fe0700")
"""A picture of one pixel."""


async def write_stored(sessions: Sessions, build: uuid.UUID, events: Sequence[tuple[str, int | None, Any]]) -> int:
    """Write events of any type and shape: type, turn and data of each. Returns the last one's id."""
    rows = [
        {"build_id": build, "id": number, "type": kind, "turn": turn, "data": data}
        for number, (kind, turn, data) in enumerate(events, 1)
    ]
    async with transaction(sessions) as tx:
        await tx.session.execute(insert(Event), rows)
        await tx.session.execute(update(Build).where(Build.id == build).values(last_event_id=len(rows)))
    return len(rows)


@pytest.mark.web
async def test_every_type_of_event_has_a_row(console: Console) -> None:
    build = await build_row(console.api.sessions, console.user)
    stored = [(each.type, each.turn, each.data) for each in events_of(FEEDS / "edges.jsonl")]
    last = await write_stored(console.api.sessions, build, stored)
    feed = await open_feed(console, build, last, everything=True)
    rows = await feed.whole()
    types = {kind for row in rows for kind in row["types"].split()}
    assert types == {*EVENTS, "unknown"}, "rows.ts says where an event of each type is shown"
    assert not [row for row in rows if "could not be shown" in row["text"] or not row["text"].strip()]
    await feed.scroller.get_by_text("An event that this page does not know: of_tomorrow").scroll_into_view_if_needed()


async def test_ten_thousand_events(console: Console) -> None:
    sessions = console.api.sessions
    build = await build_row(sessions, console.user)
    last = await write_feed(sessions, build, feed_lines(10_000))
    feed = await open_feed(console, build, last)
    first, _, _, complete = await feed.loaded()
    assert (first > 1, complete) == (True, False), "the newest events come first"
    assert await feed.nodes() <= NODES_MOST

    async def reach_the_beginning() -> bool:
        await feed.scroll_to(0)
        return (await feed.loaded())[3]

    await wait_until(reach_the_beginning)
    await feed.scroll_to(0)
    async with transaction(sessions) as tx:
        ids = list(await tx.session.scalars(select(Event.id).where(Event.build_id == build).order_by(Event.id)))
    assert ids == list(range(1, 10_001))
    assert await feed.loaded() == (1, 10_000, 10_000, True)
    await expect(feed.rows.filter(has_text="The build waits for its start.")).to_be_in_viewport()
    assert await feed.nodes() <= NODES_MOST
    devtools = await console.context.new_cdp_session(console.page)
    await devtools.send("HeapProfiler.enable")
    await devtools.send("HeapProfiler.collectGarbage")
    used = (await devtools.send("Runtime.getHeapUsage"))["usedSize"]
    assert used <= HEAP_MOST, f"{used / 2**20:.1f} MiB"

    # The phases in the middle are folded, and lead to the feed once they are shown.
    phases = console.page.get_by_role("list", name="Phases")
    await expect(phases.get_by_role("button", name="Add part 1", exact=True)).to_be_visible()
    await expect(phases.get_by_role("button", name="Add part 2", exact=True)).to_have_count(0)
    rest = phases.get_by_role("button", name=re.compile(r"^\d+ more phases$"))
    await rest.press("Enter")
    await expect(phases.get_by_role("button", name="Show fewer phases")).to_be_focused()
    await phases.get_by_role("button", name="Add part 2", exact=True).press("Enter")
    await expect(feed.rows.filter(has_text="Phase 2: Add part 2")).to_be_in_viewport()


async def test_the_end_is_followed_and_nothing_moves_above_it(console: Console) -> None:
    sessions = console.api.sessions
    build = await build_row(sessions, console.user)
    last = await write_feed(sessions, build, feed_lines(2000))
    feed = await open_feed(console, build, last)

    # At the end it stays there: when rows come, and when the window gets lower.
    last = await write_events(sessions, build, NarrationEvent(text="Long. " * 200, claim="x"), turn=9000)
    await feed.has(last)
    await feed.stays_at_end()
    await console.page.set_viewport_size({"width": 1440, "height": 600})
    await feed.stays_at_end()
    await expect(console.page.get_by_role("button", name="To the end")).to_have_count(0)

    # Away from the end, new rows are counted, and what is read does not move.
    height = int(await feed.scroller.evaluate("element => element.scrollHeight"))
    await feed.scroll_to(height // 2)
    await feed.settled()
    key, before = await feed.first_visible()
    for number in range(5):
        lines = [NarrationEvent(text=f"New {number}.", claim=f"n{number}")] * 100
        last = await write_events(sessions, build, *lines, turn=9001 + number)
        await feed.has(last)
    await feed.settled()
    assert await feed.offset_of(key) == pytest.approx(before, abs=1)
    button = console.page.get_by_role("button", name="5 new")
    await button.click()
    await feed.stays_at_end()
    await expect(button).to_have_count(0)

    # Earlier rows that are loaded above do not move it either.
    first, *_ = await feed.loaded()
    await feed.scroll_to(0)
    await feed.settled()
    key, before = await feed.first_visible()

    async def has_more() -> bool:
        return (await feed.loaded())[0] < first

    await wait_until(has_more)
    await feed.settled()
    assert await feed.offset_of(key) == pytest.approx(before, abs=1)


@pytest.mark.web
async def test_what_is_withdrawn_is_gone_from_the_story_and_marked_in_everything(console: Console) -> None:
    sessions = console.api.sessions
    build = await build_row(sessions, console.user)
    lost = [NarrationEvent(text=f"Lost {number}.", claim="a") for number in range(3)]
    last = await write_events(sessions, build, StatusEvent(status="code"), *lost, turn=1)
    feed = await open_feed(console, build, last)
    await expect(feed.rows.filter(has_text="Lost 0. Lost 1. Lost 2.")).to_be_visible()
    again = NarrationEvent(text="Said again.", claim="b")
    await write_events(sessions, build, TurnWithdrawnEvent(claim="a"), again, turn=1)
    await expect(feed.rows.filter(has_text="Said again.")).to_be_visible()
    await expect(feed.rows.filter(has_text="Lost")).to_have_count(0)
    await console.page.get_by_role("button", name="Everything").click()
    await expect(feed.rows.filter(has_text="Lost")).to_have_count(3)
    await expect(feed.rows.filter(has_text="Turn 1 was interrupted")).to_be_visible()


@pytest.mark.web
async def test_a_filter_searches_the_whole_feed(console: Console) -> None:
    sessions = console.api.sessions
    build = await build_row(sessions, console.user)
    await write_events(sessions, build, MessageEvent(number=1, text="Paint it purple."))
    last = await write_feed(sessions, build, feed_lines(3000))
    feed = await open_feed(console, build, last)
    await console.page.keyboard.press("/")
    await console.page.keyboard.type("purple")
    await expect(feed.rows).to_have_count(1)
    await expect(feed.rows).to_contain_text("Paint it purple.")
    await console.page.keyboard.press("Escape")
    await expect(feed.rows.filter(has_text="purple")).to_have_count(0)
    await console.page.get_by_role("button", name="Kinds").click()
    await console.page.get_by_role("button", name="Failed", exact=True).click()
    await wait_until(lambda: _all_have(feed.rows, "Failed"))
    await console.page.get_by_role("button", name="Clear the filter").click()
    await console.page.get_by_role("searchbox").fill("nothing has this")
    await expect(console.page.get_by_text("Nothing in the feed matches.")).to_be_visible()


async def _all_have(rows: Locator, text: str) -> bool:
    texts = await rows.all_inner_texts()
    return bool(texts) and all(text in each for each in texts)


@pytest.mark.web
async def test_an_address_leads_to_its_event(console: Console) -> None:
    sessions = console.api.sessions
    build = await build_row(sessions, console.user)
    last = await write_feed(sessions, build, feed_lines(3000))
    await console.open(f"/builds/{build}#e101")
    feed = FeedOnPage(console.page)
    await feed.has(last)
    target = feed.scroller.locator("[class*=target]")
    await expect(target).to_be_in_viewport()
    assert 80 < int(await target.get_attribute("data-event") or 0) <= 101


@pytest.mark.web
async def test_keys_move_through_the_rows(console: Console) -> None:
    sessions = console.api.sessions
    build = await build_row(sessions, console.user)
    last = await write_feed(sessions, build, feed_lines(200))
    feed = await open_feed(console, build, last)
    focused = feed.scroller.locator("[data-row]:focus")
    await console.page.locator("body").click(position={"x": 700, "y": 5})
    await console.page.keyboard.press("j")
    end = int(await focused.get_attribute("data-index") or -1)
    for _ in range(30):
        await console.page.keyboard.press("k")
        await feed.settled()
    await expect(focused).to_have_attribute("data-index", str(end - 30))
    await expect(focused).to_be_in_viewport()
    if "work" not in (await focused.inner_text()).lower():
        await console.page.keyboard.press("k")
        await feed.settled()
    count = int(await feed.rows.first.get_attribute("aria-setsize") or 0)
    await console.page.keyboard.press("o")
    await expect(focused.get_by_role("button")).to_have_attribute("aria-expanded", "true")
    assert int(await feed.rows.first.get_attribute("aria-setsize") or 0) > count
    await console.page.keyboard.press("v")
    await expect(console.page.get_by_role("button", name="Everything")).to_have_attribute("aria-pressed", "true")
    await console.page.keyboard.press("End")
    await feed.stays_at_end()


CALLS: Sequence[tuple[str, dict[str, Any], Any, bool]] = (
    ("bash", {"command": "make <b>test</b>"}, "\n".join(f"line {n}" for n in range(100)) + "\n[exit code 2]", True),
    ("read_file", {"file_path": "src/app.py", "view_range": [1, 5]}, "     1\timport os", False),
    ("write_file", {"file_path": "a.txt", "content": "one\ntwo"}, "Created a.txt.", False),
    ("edit_file", {"file_path": "a.txt", "old_string": "one\nsame", "new_string": "uno\nsame"}, "Replaced 1.", False),
    ("grep", {"pattern": "def x", "path": None, "glob": None}, "app.py:1: def x", False),
    ("glob", {"pattern": "**/*.py", "path": "src"}, "src/app.py\nsrc/money.py", False),
    ("take_screenshot", {"path": "/"}, [ImageRef("ab" * 32), "HTTP status 200."], False),
    ("of_tomorrow", {"deep": {"odd": [1]}}, "Done.", False),
)


async def _write_calls(console: Console, build: uuid.UUID) -> int:
    blocks = [
        {"type": "tool_use", "id": f"toolu_{position}", "name": name, "input": tool_input}
        for position, (name, tool_input, *_) in enumerate(CALLS)
    ]
    answered = {"outcome": "tool_use", "answered_at": func.now()}
    rows: list[Any] = [Turn(build_id=build, number=1, run_id="r", claim=uuid.uuid4(), **answered)]
    rows.append(Message(build_id=build, turn=1, role="assistant", content=json.dumps(blocks)))
    stored: list[tuple[str, int | None, Any]] = []
    for position, (name, _, result, failed) in enumerate(CALLS):
        call = {"tool_use_id": f"toolu_{position}", "name": name, "summary": f"{name}: {position}"}
        content = render_result(call["tool_use_id"], result, failed)
        done = {"state": "done", "result": content, "is_error": failed, "done_at": func.now()}
        rows.append(ToolCall(build_id=build, turn=1, position=position, **call, **done))
        stored += [("tool_started", 1, call), ("tool_done", 1, {**call, "is_error": failed, "seconds": 1.5})]
    async with transaction(console.api.sessions) as tx:
        tx.session.add_all(rows)
    return await write_stored(console.api.sessions, build, stored)


@pytest.mark.web
async def test_each_call_shows_what_its_row_holds(console: Console) -> None:
    store = console.api.resources.store
    assert isinstance(store, ObjectStore)
    await store.put_image("ab" * 32, WEBP)
    build = await build_row(console.api.sessions, console.user)
    last = await _write_calls(console, build)
    feed = await open_feed(console, build, last)
    await feed.rows.get_by_role("button", name=re.compile("^Worked")).click()

    async def opened(position: int) -> Locator:
        row = feed.scroller.locator(f"[data-row=ctoolu_{position}]")
        await row.get_by_role("button").first.click()
        detail = row.locator("[data-call]")
        await expect(detail).to_be_visible()
        return detail

    async def close(position: int) -> None:
        await feed.scroller.locator(f"[data-row=ctoolu_{position}]").get_by_role("button").first.click()

    bash = await opened(0)
    await expect(bash).to_contain_text("make <b>test</b>")
    await expect(bash).to_contain_text("exit code 2")
    await expect(bash.get_by_text("line 99")).to_have_count(0)
    await bash.get_by_role("button", name="Show all 100 lines").click()
    await expect(bash.get_by_text("line 99")).to_be_attached()
    await close(0)
    read = await opened(1)
    await expect(read).to_contain_text("src/app.py")
    await expect(read).to_contain_text("1-5")
    await close(1)
    written = await opened(2)
    await expect(written.locator("pre").first).to_have_text("one\ntwo")
    await close(2)
    edited = await opened(3)
    await expect(edited.locator("pre").first).to_have_text("- one\n+ uno\n  same\n")
    await expect(edited.locator("mark")).to_have_text(["one", "uno"])
    await close(3)
    await expect(await opened(4)).to_contain_text("app.py:1: def x")
    await close(4)
    listed = await opened(5)
    await expect(listed.get_by_role("region", name="Pattern")).to_contain_text("**/*.py")
    await expect(listed.locator("pre").last).to_have_text("src/app.py\nsrc/money.py")
    await close(5)
    pictured = await opened(6)
    await expect(pictured.get_by_role("img")).to_have_js_property("naturalWidth", 1)
    await close(6)
    await expect(await opened(7)).to_contain_text('"odd": [')
    requests = [each for each in console.requests if "/tool-calls/" in each.url]
    assert len(requests) == len(CALLS), "what is done is loaded once"


async def _start_calls(console: Console, build: uuid.UUID, *commands: str) -> list[dict[str, Any]]:
    """Write commands that run: their turn, message, rows and events. Returns what their events hold."""
    ids = [f"toolu_{position}" for position in range(len(commands))]
    blocks = [
        {"type": "tool_use", "id": call, "name": "bash", "input": {"command": command}}
        for call, command in zip(ids, commands, strict=True)
    ]
    calls = [
        {"tool_use_id": call, "name": "bash", "summary": f"bash: {command}"}
        for call, command in zip(ids, commands, strict=True)
    ]
    intent = {"state": "intended", "claim": uuid.uuid4(), "sandbox_id": "sandbox", "intended_at": func.now()}
    async with transaction(console.api.sessions) as tx:
        answered = {"outcome": "tool_use", "answered_at": func.now()}
        tx.session.add(Turn(build_id=build, number=1, run_id="r", claim=uuid.uuid4(), **answered))
        tx.session.add(Message(build_id=build, turn=1, role="assistant", content=json.dumps(blocks)))
        for position, call in enumerate(calls):
            tx.session.add(ToolCall(build_id=build, turn=1, position=position, **call, **intent))
    await write_events(console.api.sessions, build, *(ToolStartedEvent(**call) for call in calls), turn=1)
    return calls


async def _finish_call(console: Console, build: uuid.UUID, call: dict[str, Any], output: str) -> None:
    result = render_result(call["tool_use_id"], output, False)
    async with transaction(console.api.sessions) as tx:
        row = await tx.session.get_one(ToolCall, (build, call["tool_use_id"]))
        row.state, row.result, row.is_error, row.done_at = "done", result, False, datetime.now(UTC)
    await write_events(console.api.sessions, build, ToolDoneEvent(**call, is_error=False, seconds=2.0), turn=1)


@pytest.mark.web
async def test_an_open_call_gets_its_result_and_a_call_without_one_is_lost(console: Console) -> None:
    sessions = console.api.sessions
    build = await build_row(sessions, console.user)
    await write_events(sessions, build, StatusEvent(status="code"))
    calls = await _start_calls(console, build, "make test", "sleep 9999")
    feed = await open_feed(console, build, 3)
    await feed.rows.get_by_role("button", name=re.compile("^Working")).click()
    details = []
    for call in calls:
        row = feed.scroller.locator(f"[data-row=c{call['tool_use_id']}]")
        await row.get_by_role("button").first.click()
        details.append(row.locator("[data-call]"))
    for detail, command in zip(details, ("make test", "sleep 9999"), strict=True):
        await expect(detail).to_have_attribute("data-state", "running")
        await expect(detail).to_contain_text(command)
        await expect(detail).to_contain_text("It runs.")

    # The longest output that is stored.
    output = bound("\n".join(f"line {number:06}" for number in range(10_000)))
    await _finish_call(console, build, calls[0], output)
    finished, lost = details
    await expect(finished).to_have_attribute("data-state", "done")
    shown = finished.get_by_role("region", name="Output").locator("pre")
    await expect(shown).to_contain_text("line 000000")
    assert len(await shown.inner_text()) < 1000, "the first lines"
    await finished.get_by_role("button", name=re.compile(r"^Show all [\d,]+ lines$")).click()
    await expect(shown).to_contain_text("line 009999")
    assert await shown.evaluate("element => element.textContent") == output

    async with transaction(sessions) as tx:
        ended = await tx.session.get_one(Build, build)
        ended.status, ended.closed_at = "failed", datetime.now(UTC)
    await write_events(sessions, build, StatusEvent(status="failed", reason="The sandbox service is gone."))
    await expect(lost).to_have_attribute("data-state", "lost")
    await expect(lost).to_contain_text("It has no result")
    await expect(finished).to_have_attribute("data-state", "done")
