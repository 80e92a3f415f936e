"""What users, models and tools have written is text on a build's page, whatever it looks like."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from playwright.async_api import Dialog, Locator, expect
from sqlalchemy import func, select, update

from db.models import Build, FounderMessage, Message, Project, Question, ToolCall, Turn
from db.transaction import transaction
from domain.events import (
    AnswerEvent,
    BudgetEvent,
    BuildEvent,
    CompactedEvent,
    GateBouncedEvent,
    GateStartedEvent,
    GateStepEvent,
    GuardEvent,
    HookFailedEvent,
    MessageEvent,
    NarrationEvent,
    PhaseCompletedEvent,
    QuestionEvent,
    RestoreAskedEvent,
    RestoreFailedEvent,
    ResumedEvent,
    StatusEvent,
    ToolDoneEvent,
    ToolStartedEvent,
    TurnFailedEvent,
)
from domain.tool_output import render_result
from tests.harness.console import Console
from tests.harness.feeds import build_row, write_events
from tests.harness.hostile_texts import MARKDOWN, NAME, SHOWN_NAME, TEXTS, UNSEEN
from tests.web.build_page import receipts
from tests.web.feed_page import open_feed

CORPUS = "\n".join([*TEXTS, *MARKDOWN, *(raw for raw, _ in UNSEEN)])
LINES = [line for text in (*TEXTS, *MARKDOWN) for line in text.split("\n") if line] + [mark for _, mark in UNSEEN]
"""What a page shows of the corpus."""

OUTPUT_LINES = [line for line in LINES if not any("\u2400" <= each <= "\u241f" for each in line)]
"""The same of what a tool returns, in which controls are replaced before it is stored."""

MADE = (
    "body :is(script, object, embed, base, meta, link, style, math, form[action], [srcdoc], [onerror], [onload],"
    " [onfocus], [onmouseover], [ontoggle], a[href^=javascript i], a[href^=data i], a[href*='evil.example'],"
    " img[src*='evil.example'])"
)
"""What the page has of none of its own."""


def _missing(text: str | None, lines: Sequence[str] = LINES) -> list[str]:
    shown = " ".join((text or "").split())
    return [line for line in lines if " ".join(line.split()) not in shown]


async def _assert_shown(where: Locator, lines: Sequence[str] = LINES) -> None:
    await expect(where).to_contain_text(lines[0])
    assert _missing(await where.text_content(), lines) == []


async def _write_calls(console: Console, build: uuid.UUID) -> list[BuildEvent]:
    """Two finished calls whose inputs and outputs are the corpus. Returns their events."""
    inputs: dict[str, dict[str, Any]] = {
        "bash": {"command": CORPUS},
        "edit_file": {"file_path": TEXTS[3], "old_string": "", "new_string": CORPUS},
    }
    blocks = [{"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": inputs[name]} for name in inputs]
    rows: list[Any] = [
        Turn(build_id=build, number=1, run_id="r", claim=uuid.uuid4(), outcome="tool_use", answered_at=func.now()),
        Message(build_id=build, turn=1, role="assistant", content=json.dumps(blocks)),
    ]
    events: list[BuildEvent] = []
    for position, name in enumerate(inputs):
        call = {"tool_use_id": f"toolu_{name}", "name": name, "summary": f"{name}: {TEXTS[position]}"}
        result = render_result(call["tool_use_id"], CORPUS, False)
        done = {"state": "done", "result": result, "is_error": False, "done_at": func.now()}
        rows.append(ToolCall(build_id=build, turn=1, position=position, **call, **done))
        events += [ToolStartedEvent(**call), ToolDoneEvent(**call, is_error=False, seconds=1.0)]
    async with transaction(console.api.sessions) as tx:
        tx.session.add_all(rows)
    return events


async def _open_call(scroller: Locator, name: str) -> Locator:
    row = scroller.locator(f"[data-row=ctoolu_{name}]")
    await row.get_by_role("button").first.click()
    return row


async def _show_all(section: Locator) -> None:
    await section.get_by_role("button", name="Show all").click()


@pytest.mark.web
async def test_hostile_texts_are_only_text_in_the_feed_and_the_head(console: Console) -> None:
    dialogs: list[str] = []

    async def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        await dialog.dismiss()

    page = console.page
    page.on("dialog", dismiss)
    await page.set_viewport_size({"width": 1440, "height": 3000})  # fewer steps through a feed of long rows
    sessions = console.api.sessions
    waits = {"status": "needs_input", "waiting_for": "founder", "reason": CORPUS}
    build = await build_row(sessions, console.user, goal=CORPUS, **waits)
    question = uuid.uuid4()
    async with transaction(sessions) as tx:
        project = await tx.session.scalar(select(Build.project_id).where(Build.id == build))
        await tx.session.execute(update(Project).where(Project.id == project).values(name=NAME))
        asked: dict[str, Any] = {"problem": CORPUS, "tried": [CORPUS], "options": [*TEXTS[:6]]}
        tx.session.add(Question(id=question, build_id=build, **asked))
        tx.session.add(FounderMessage(build_id=build, number=1, text=CORPUS))
    summaries = [ToolDoneEvent(tool_use_id=f"s{n}", name="bash", summary=text) for n, text in enumerate(LINES[:30])]
    phases = [PhaseCompletedEvent(phase=n, commit=f"{n:040x}", title=text) for n, text in enumerate(TEXTS[:12], 1)]
    restored = [RestoreAskedEvent(number=1, commit="1" * 40), RestoreFailedEvent(number=1, error=CORPUS)]
    last = await write_events(
        sessions,
        build,
        NarrationEvent(text=CORPUS, claim="a"),
        *await _write_calls(console, build),
        *summaries,
        *phases,
        *restored,
        ResumedEvent(reason=CORPUS, continuing_from=TEXTS[3], changes=[CORPUS]),
        GateStartedEvent(number=1),
        GateStepEvent(text=CORPUS),
        GateBouncedEvent(number=1, findings=[CORPUS]),
        GuardEvent(text=CORPUS),
        BudgetEvent(text=CORPUS),
        TurnFailedEvent(error=CORPUS),
        HookFailedEvent(error=CORPUS),
        CompactedEvent(summary=CORPUS),
        MessageEvent(number=1, text=CORPUS),
        AnswerEvent(number=2, text=CORPUS),
        QuestionEvent(question_id=str(question), **asked),
        StatusEvent(**waits),
        turn=1,
    )
    feed = await open_feed(console, build, last, everything=True)

    rows = await feed.whole()
    sinks = (
        "narration gate_step gate_bounced guard budget turn_failed hook_failed compacted message answer question status"
    )
    for kind in sinks.split():
        assert _missing(" ".join(row["content"] for row in rows if kind in row["types"].split())) == [], kind
    everything = " ".join(" ".join(row["content"].split()) for row in rows)
    for text in (*LINES[:30], *TEXTS[:12]):
        assert " ".join(text.split()) in everything

    await expect(page.locator("h1")).to_have_text(SHOWN_NAME)
    assert SHOWN_NAME in await page.title()
    await _assert_shown(page.locator("header", has=page.locator("h1")))
    await _assert_shown(page.locator("#question"))
    await expect(page.locator("#question fieldset")).to_contain_text(TEXTS[3])
    await _assert_shown(receipts(page))
    await _assert_shown(page.locator("p", has_text="The workspace was not put back").locator(".."))
    await _assert_shown(page.locator("p", has_text="The workspace was restored").locator(".."))
    phases_shown = page.get_by_role("list", name="Phases")
    for text in TEXTS[:12]:
        await expect(phases_shown.get_by_role("button", name=text, exact=True)).to_be_visible()

    await feed.scroll_to(0)
    await feed.settled()
    bash = await _open_call(feed.scroller, "bash")
    await _show_all(bash.get_by_role("region", name="Command"))
    await _assert_shown(bash.get_by_role("region", name="Command"))
    await _show_all(bash.get_by_role("region", name="Output"))
    await _assert_shown(bash.get_by_role("region", name="Output"), OUTPUT_LINES)
    await bash.get_by_role("button").first.click()
    edit = await _open_call(feed.scroller, "edit_file")
    await expect(edit).to_contain_text(TEXTS[3])
    await _assert_shown(edit.get_by_role("region", name="Change"))

    assert await page.locator(MADE).count() == 0
    await console.open("/")
    await expect(page.get_by_text(SHOWN_NAME).first).to_be_visible()
    assert await page.locator(MADE).count() == 0
    assert dialogs == []
