"""Summing up a conversation, and beginning again without a summary, against the rehearsal model."""

import asyncio
import hashlib
import io
import itertools
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select, update
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import compact as compact_module
from activities import think as think_module
from activities.compact import CompactActivities
from activities.think import ThinkActivities
from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import ModelRequest, OnLimits, OnText, OnUsage
from db import money
from db.models import Build, Compaction, Event, FounderMessage, LedgerEntry, Prompt, ToolCall, Turn, User, UserDay
from db.prompts import FirstSettings, store_prompt
from db.transaction import transaction
from domain.answer import Answer
from domain.compaction import MOST_IMAGES, TAIL_TURNS
from domain.model_choice import ModelChoice
from domain.models import default_prices
from domain.notes import TurnNote
from domain.payloads import (
    CheckBudget,
    CompactConversation,
    CompactResult,
    RequestedCall,
    ThinkInput,
    ThinkOutcome,
    ThinkResult,
)
from domain.pricing import PriceTable
from domain.refusals import REFUSALS_IN_A_ROW
from domain.tool_output import ImageRef, render_result
from domain.tools import render_tools
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness

MODEL = "claude-sonnet-5-5"
RESULT = "x" * 8000
WINDOW = 60_000
TODAY = ActivityEnvironment.default_info().started_time.date()
"""The day of every call in these tests."""


class RecordingProvider(AnthropicProvider):
    """The real provider, which keeps the requests that it has sent."""

    def __init__(self, url: str) -> None:
        super().__init__("a-key", url, DEADLINE)
        self.sent: list[ModelRequest] = []

    async def stream(
        self, request: ModelRequest, on_text: OnText, on_usage: OnUsage, on_limits: OnLimits | None = None
    ) -> Answer:
        self.sent.append(request)
        return await super().stream(request, on_text, on_usage, on_limits)


class Killed(BaseException):
    """Like the death of a worker, it leaves no chance to clean up."""


@dataclass
class Talk:
    """A build whose turns are taken one by one. Tests answer the calls that the model asks for."""

    harness: ActivityHarness
    worker: WorkerHarness
    build: str
    goal: str
    model: RecordingProvider
    prices: PriceTable
    turn: int = 0
    sent: dict[int, ModelRequest] = field(default_factory=dict)
    """The request of each answered turn."""

    @property
    def build_id(self) -> uuid.UUID:
        return uuid.UUID(self.build)

    def price(self, **changes: Any) -> None:
        """Change the model's row of the price table."""
        self.prices = {MODEL: self.prices[MODEL].model_copy(update=changes)}

    def thinker(self) -> ThinkActivities:
        return ThinkActivities(self.harness.sessions, {"anthropic": self.model}, self.harness.store, self.prices, 8000)

    async def think(self, *notes: TurnNote, result: str | list[ImageRef] = RESULT) -> ThinkResult:
        """Take the next turn, and answer its calls."""
        request = ThinkInput(build_id=self.build, turn=self.turn + 1, notes=list(notes))
        thought = await ActivityEnvironment().run(self.thinker().think, request)
        if thought.outcome not in (ThinkOutcome.TOOL_USE, ThinkOutcome.END_TURN):
            return thought
        self.turn += 1
        self.sent[self.turn] = self.model.sent[-1]
        for call in thought.calls:
            await self.answer_call(call, result)
        return thought

    async def answer_call(self, call: RequestedCall, result: str | list[ImageRef]) -> None:
        stored = render_result(call.tool_use_id, result)
        values = {"state": "done", "is_error": False, "result": stored}
        if not isinstance(result, str):
            values["name"] = "take_screenshot"
        mine = ToolCall.build_id == self.build_id, ToolCall.tool_use_id == call.tool_use_id
        async with transaction(self.harness.sessions) as tx:
            await tx.session.execute(update(ToolCall).where(*mine).values(**values))

    async def until_long(self) -> None:
        """Take turns until the conversation is to be summed up."""
        while not (await self.think()).compact:
            assert self.turn < 60

    def compactor(self) -> CompactActivities:
        return CompactActivities(self.harness.sessions, {"anthropic": self.model}, self.harness.store, self.prices)

    async def compact(self) -> CompactResult:
        request = CompactConversation(build_id=self.build, turn=self.turn)
        return await ActivityEnvironment().run(self.compactor().compact, request)

    async def rows(self, table: Any, **criteria: Any) -> list[Any]:
        query = select(table).where(table.build_id == self.build_id).filter_by(**criteria)
        async with transaction(self.harness.sessions) as tx:
            return list(await tx.session.scalars(query))

    async def prefixes(self) -> list[Prompt]:
        return sorted(await self.rows(Prompt), key=lambda row: row.prefix)

    async def fault(self, kind: str, **more: Any) -> None:
        await self.worker.rehearse("faults", {"kind": kind, "match": self.goal, **more})

    async def limit(self, **limits: Any) -> None:
        await self.worker.rehearse("limits", {"match": self.goal, **limits})

    async def check_ledger(self) -> None:
        """The ledger has what the server has served, compactions included."""
        served = {line["request_id"]: line for line in await self.worker.served()}
        settled = await self.rows(LedgerEntry, state="settled")
        for entry in settled:
            usage = served[entry.request_id]["usage"]
            assert (entry.input_tokens, entry.cache_write_5m_tokens, entry.cache_read_tokens, entry.output_tokens) == (
                *(usage[name] for name in ("input", "cache_write_5m", "cache_read", "output")),
            )
        assert await self.rows(LedgerEntry, state="open") == []

    def messages(self, turn: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.sent[turn].body)["messages"]
        return found


@pytest.fixture(scope="module")
async def activity_harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def talk(activity_harness: ActivityHarness, harness: WorkerHarness) -> AsyncIterator[Talk]:
    build, goal = await activity_harness.build(), f"goal-{uuid.uuid4().hex}"
    model = RecordingProvider(harness.model_url)
    price = default_prices()[MODEL].model_copy(update={"context_tokens": WINDOW})
    async with transaction(activity_harness.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
        row.model = MODEL
        (await tx.session.get_one(User, row.user_id)).plan = "cto_scale"
        system = json.dumps([{"type": "text", "text": f"Build {goal}."}], separators=(",", ":"))
        frozen = model.freeze(price, ModelChoice(model=MODEL, effort="high"))
        settings = FirstSettings(frozen.settings, frozen.betas)
        await store_prompt(tx, uuid.UUID(build), system, render_tools(), settings)
    await harness.rehearse("scripts", {"match": goal, "script": {"kind": "long", "turns": 500}})
    yield Talk(activity_harness, harness, build, goal, model, {MODEL: price})
    await model.close()


def after_settings(request: ModelRequest) -> bytes:
    return request.body[request.body.index(b'"system":') :]


def goes_on(before: ModelRequest, after: ModelRequest) -> bool:
    """Whether a request goes on from another, byte for byte."""
    return after_settings(after).startswith(after_settings(before).removesuffix(b"]}"))


def texts(message: dict[str, Any]) -> str:
    return "\n".join(block["text"] for block in message["content"] if block["type"] == "text")


async def test_a_summary_opens_a_prefix_and_each_request_goes_on_from_the_one_before(talk: Talk) -> None:
    await talk.until_long()
    assert (await talk.compact()) == CompactResult(opened=True)
    cut, summary = talk.turn, talk.model.sent[-1]
    covers = cut - TAIL_TURNS
    assert after_settings(summary) == after_settings(talk.sent[covers])
    assert json.loads(summary.body)["compaction"]["type"] == "summarize"
    for _ in range(3):
        await talk.think()
    for first, last in ((1, cut), (cut + 1, talk.turn)):
        pairs = itertools.pairwise(talk.sent[turn] for turn in range(first, last + 1))
        assert all(goes_on(*pair) for pair in pairs)
    opening = talk.messages(cut + 1)
    assert [message["role"] for message in opening[:3]] == ["assistant", "assistant", "user"]
    assert opening[1:] == talk.messages(cut)[2 * covers - 1 :] + opening[-2:]
    assert "compact-2026-09-04" in talk.sent[cut + 1].betas.split(",")
    assert [(row.prefix, row.covers) for row in await talk.prefixes()] == [(0, 0), (1, covers)]
    assert {row.number: row.prefix for row in await talk.rows(Turn)} == {
        number: int(number > cut) for number in range(1, talk.turn + 1)
    }
    await talk.check_ledger()
    [entry] = await talk.rows(LedgerEntry, kind="compaction")
    assert (entry.turn, entry.prefix, entry.state) == (covers, 0, "settled")
    assert entry.cache_read_tokens > entry.input_tokens + entry.cache_write_5m_tokens, "the prompt is in the cache"
    [event] = await talk.harness.events(talk.build, "compacted")
    assert event.data["tokens_before"] > 40_000
    assert "Summary of the conversation" in event.data["summary"]


async def test_a_second_summary_covers_the_first(talk: Talk) -> None:
    for _ in range(2):
        await talk.until_long()
        assert (await talk.compact()).opened
    await talk.think()
    first, second = [row.covers for row in await talk.prefixes()][1:]
    assert first < second == talk.turn - 1 - TAIL_TURNS
    kinds = [block["type"] for message in talk.messages(talk.turn) for block in message["content"]]
    assert kinds.count("compaction") == 1
    assert talk.sent[talk.turn].betas.split(",").count("compact-2026-09-04") == 1


async def test_a_turn_is_sent_again_with_the_prefix_that_it_was_first_sent_with(talk: Talk) -> None:
    await talk.until_long()
    await talk.fault("server_error")
    with pytest.raises(ApplicationError, match="500"):
        await talk.think()
    before = talk.model.sent[-1]
    assert (await talk.compact()).opened
    await talk.think()
    assert talk.sent[talk.turn].body == before.body
    assert [row.prefix for row in await talk.rows(Turn, number=talk.turn)] == [0]


async def test_the_agent_is_told_what_a_summary_may_have_lost(talk: Talk) -> None:
    await talk.until_long()
    async with transaction(talk.harness.sessions) as tx:
        read = FounderMessage(build_id=talk.build_id, number=1, text="Make it blue.", turn=2, read_at=datetime.now(UTC))
        tx.session.add(read)
        tx.session.add(FounderMessage(build_id=talk.build_id, number=2, text="And round."))
        event = {"phase": 1, "commit": "abc", "title": "Add the waitlist"}
        build = await tx.session.get_one(Build, talk.build_id)
        build.last_event_id += 1
        tx.session.add(
            Event(build_id=talk.build_id, id=build.last_event_id, type="phase_completed", turn=None, data=event)
        )
    await talk.compact()
    assert (await talk.think(TurnNote.COMPACTED)).message_read == 2
    note, founder = (block["text"] for block in talk.messages(talk.turn)[-1]["content"] if block["type"] == "text")
    assert "<founder_message>\nMake it blue.\n</founder_message>" in note
    assert "Add the waitlist" in note
    assert "PLAN.md and NOTES.md are in the workspace" in note
    assert "And round." in founder
    assert "And round." not in note, "a message that is read now is not repeated"


@pytest.mark.parametrize("point", ["before_call", "after_call", "stored"])
async def test_killed_in_a_compaction_it_ends_the_same(talk: Talk, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    await talk.until_long()

    async def die(name: str) -> None:
        if name == f"compact.{point}":
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(compact_module, "crash_point", die)
        with pytest.raises(Killed):
            await talk.compact()
    assert await talk.compact() == CompactResult(opened=True)
    await talk.think()
    assert [(row.prefix, row.covers) for row in await talk.prefixes()] == [(0, 0), (1, talk.turn - 1 - TAIL_TURNS)]
    states = Counter(entry.state for entry in await talk.rows(LedgerEntry, kind="compaction"))
    assert states == ({"settled": 1} if point == "stored" else {"settled": 1, "estimated": 1})
    await talk.check_ledger()


async def test_two_attempts_at_once_open_one_prefix(talk: Talk) -> None:
    await talk.until_long()
    results = await asyncio.gather(*(talk.compact() for _ in range(5)), return_exceptions=True)
    opened = [result for result in results if result == CompactResult(opened=True)]
    stale = [result for result in results if isinstance(result, ApplicationError) and result.type == "StaleClaim"]
    assert (len(opened) + len(stale), len(opened) > 0) == (5, True), results
    assert len(await talk.prefixes()) == 2
    assert len(await talk.harness.events(talk.build, "compacted")) == 1
    assert await talk.compact() == CompactResult(opened=True)
    assert {entry.state for entry in await talk.rows(LedgerEntry, kind="compaction")} == {"settled"}
    await talk.check_ledger()


@pytest.mark.parametrize(
    "kind",
    [
        "compaction_max_tokens",
        "compaction_refusal",
        "compaction_tool_use",
        "compaction_end_turn",
        "compaction_context_exceeded",
        "usage_limit",
    ],
)
async def test_without_a_summary_nothing_changes(talk: Talk, kind: str) -> None:
    await talk.until_long()
    await talk.fault(kind, request="compaction")
    assert await talk.compact() == CompactResult(opened=False)
    calls = len(talk.model.sent)
    assert await talk.compact() == CompactResult(opened=False), "it is not asked for again"
    assert len(talk.model.sent) == calls
    assert not (await talk.think(result="ok")).compact
    assert goes_on(talk.sent[talk.turn - 1], talk.sent[talk.turn])
    assert len(await talk.prefixes()) == 1
    [attempt] = await talk.rows(Compaction)
    assert attempt.outcome not in (None, "compaction")
    await talk.check_ledger()


async def test_a_compaction_that_failed_for_the_moment_is_tried_again(talk: Talk) -> None:
    await talk.until_long()
    await talk.fault("compaction_unavailable")
    with pytest.raises(ApplicationError, match="529"):
        await talk.compact()
    assert await talk.compact() == CompactResult(opened=True)
    entries = await talk.rows(LedgerEntry, kind="compaction")
    assert sorted(entry.state for entry in entries) == ["released", "settled"]


async def set_allowance(talk: Talk, microdollars: int) -> None:
    async with transaction(talk.harness.sessions) as tx:
        user_id = (await tx.session.get_one(Build, talk.build_id)).user_id
        await money.lock_day(tx, user_id, TODAY)
        day = await tx.session.get_one(UserDay, (user_id, TODAY))
        day.from_plan = microdollars


async def test_without_money_there_is_no_call_and_nothing_changes(talk: Talk) -> None:
    await talk.until_long()
    async with transaction(talk.harness.sessions) as tx:
        user_id = (await tx.session.get_one(Build, talk.build_id)).user_id
        spent = (await money.budget_of(tx, user_id, TODAY)).spent
    await set_allowance(talk, spent)
    calls = len(talk.model.sent)
    assert await talk.compact() == CompactResult(opened=False)
    assert len(talk.model.sent) == calls
    assert [row.outcome for row in await talk.rows(Compaction)] == ["no_money"]
    assert {entry.state for entry in await talk.rows(LedgerEntry, kind="compaction")} <= {"released"}


# ---- the floor


def is_floor(messages: list[dict[str, Any]]) -> bool:
    return messages[0]["role"] == "user" and "You are in the middle of this work" in texts(messages[0])


@pytest.mark.parametrize("kind", ["prompt_too_long", "request_too_large", "invalid_signature", "too_many_images"])
async def test_a_conversation_that_is_refused_begins_again_at_once(talk: Talk, kind: str) -> None:
    for _ in range(3):
        await talk.think(result="it ran fine")
    await talk.fault(kind)
    thought = await talk.think(TurnNote.GATE_FINDINGS)
    assert thought.outcome is ThinkOutcome.TOOL_USE
    [opening] = talk.messages(4)
    assert is_floor([opening])
    assert "it ran fine" in texts(opening), "the last results are in it"
    assert "did not pass" in texts(opening), "what the agent is told now is in it"
    assert [(row.prefix, row.covers) for row in await talk.prefixes()] == [(0, 0), (1, 4)]
    await talk.think()
    assert goes_on(talk.sent[4], talk.sent[5])
    states = Counter(entry.state for entry in await talk.rows(LedgerEntry))
    assert states == {"settled": 5, "released": 1}
    [event] = await talk.harness.events(talk.build, "compacted")
    assert event.turn == 4
    assert not await talk.harness.events(talk.build, "turn_failed"), "the founder has nothing to do"
    await talk.check_ledger()


async def test_a_request_that_is_too_large_is_not_sent(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(think_module, "MOST_BYTES", 30_000)
    for _ in range(6):
        await talk.think()
    assert all(len(request.body) <= 30_000 for request in talk.model.sent)
    assert len(talk.model.sent) == 6
    floors = [row for row in await talk.prefixes() if row.opening]
    assert floors


async def test_the_last_turn_before_a_founder_is_asked_begins_without_what_was_declined(talk: Talk) -> None:
    for _ in range(2):
        await talk.think(result="it ran fine")
    await ActivityEnvironment().run(
        talk.thinker().think, ThinkInput(build_id=talk.build, turn=3, refusals=REFUSALS_IN_A_ROW - 1)
    )
    [opening] = json.loads(talk.model.sent[-1].body)["messages"]
    assert is_floor([opening])


async def test_a_floor_that_is_refused_is_for_a_person(talk: Talk) -> None:
    await talk.think()
    await talk.fault("prompt_too_long", times=None)
    for _ in range(2):
        with pytest.raises(ApplicationError) as raised:
            await talk.think()
        assert (raised.value.type, raised.value.non_retryable) == ("NeedsPerson", True)
    assert len(await talk.prefixes()) == 2, "another floor would be refused, too"
    assert len(talk.model.sent) == 4


async def test_an_answer_that_fills_the_window_is_paid_and_the_turn_begins_again(talk: Talk) -> None:
    await talk.think()
    await talk.fault("context_exceeded")
    assert (await talk.think()).outcome is ThinkOutcome.TOOL_USE
    assert is_floor(talk.messages(2))
    entries = await talk.rows(LedgerEntry, turn=2)
    assert [entry.state for entry in entries] == ["settled", "settled"]
    assert {entry.prefix for entry in entries} == {0, 1}
    await talk.check_ledger()


async def test_a_window_that_is_full_is_met_with_a_floor_when_there_is_no_summary(talk: Talk) -> None:
    await talk.limit(window_tokens=WINDOW)
    await talk.fault("compaction_max_tokens", times=None)
    for _ in range(60):
        thought = await talk.think()
        assert thought.outcome is ThinkOutcome.TOOL_USE
        if thought.compact:
            assert not (await talk.compact()).opened
    floors = [row for row in await talk.prefixes() if row.opening]
    assert len(floors) >= 2
    assert not await talk.rows(LedgerEntry, kind="turn", state="released"), "no request was too long for the window"
    assert all(json.loads(row.opening or "")["role"] == "user" for row in floors)


async def test_a_model_that_does_not_compact_begins_again_with_a_floor(talk: Talk) -> None:
    talk.price(compacts=False)
    for _ in range(30):
        assert not (await talk.think()).compact
    floors = [row for row in await talk.prefixes() if row.opening]
    assert floors
    assert not await talk.rows(Compaction)
    [event, *_] = await talk.harness.events(talk.build, "compacted")
    assert event.data["tokens_before"] > 40_000


async def test_a_call_that_no_day_pays_for_begins_again_with_a_floor(talk: Talk) -> None:
    talk.price(context_tokens=1_000_000)
    while talk.turn < 24:
        await talk.think()
    # 50,000 tokens: one call of them may cost $0.17.
    await set_allowance(talk, 158_000)
    async with transaction(talk.harness.sessions) as tx:
        await tx.session.execute(update(LedgerEntry).where(LedgerEntry.build_id == talk.build_id).values(cost=0))
    checked = await ActivityEnvironment().run(
        talk.thinker().check_budget, CheckBudget(build_id=talk.build, turn=talk.turn)
    )
    assert not checked.exhausted, checked.reason
    assert (await talk.think()).outcome is ThinkOutcome.TOOL_USE
    assert is_floor(talk.messages(25))


async def test_images_are_summed_up_and_never_pass_the_limit(talk: Talk) -> None:
    drawn = io.BytesIO()
    Image.new("RGB", (390, 844)).save(drawn, "WEBP")
    image = drawn.getvalue()
    name = hashlib.sha256(image).hexdigest()
    await talk.harness.store.put_image(name, image)
    await talk.limit(images=MOST_IMAGES)
    due = []
    for _ in range(12):
        if (await talk.think(result=[ImageRef(name), ImageRef(name)])).compact:
            due.append(talk.turn)
    assert due[:1] == [9], "eight turns have brought 16 images"
    assert is_floor(talk.messages(12)), "with 22 images"
    assert len([row for row in await talk.prefixes() if row.opening]) == 1
