"""Summing up a conversation, and beginning again without a summary, against the rehearsal model."""

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import compact as compact_module
from activities.compact import CompactActivities
from activities.think import ThinkActivities
from clients.model.anthropic import AnthropicProvider
from clients.model.protocol import ModelRequest, OnText, OnUsage
from db.models import Build, Compaction, FounderMessage, LedgerEntry, Prompt, ToolCall, Turn
from db.prompts import store_prompt
from db.transaction import transaction
from domain.answer import Answer
from domain.compaction import TAIL_TURNS
from domain.models import default_prices
from domain.notes import TurnNote
from domain.payloads import CompactConversation, CompactResult, ThinkInput, ThinkOutcome, ThinkResult
from domain.pricing import PriceTable
from domain.tool_output import ImageRef, render_result
from domain.tools import render_tools
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness
from tests.harness.wait import DEADLINE
from tests.harness.worker import WorkerHarness

MODEL = "claude-sonnet-5-5"
OUTPUT = 8000


class RecordingProvider(AnthropicProvider):
    """The real provider, which keeps the requests that it has sent."""

    def __init__(self, url: str) -> None:
        super().__init__("a-key", url, DEADLINE)
        self.sent: list[ModelRequest] = []

    async def stream(self, request: ModelRequest, on_text: OnText, on_usage: OnUsage) -> Answer:
        self.sent.append(request)
        return await super().stream(request, on_text, on_usage)


@dataclass
class Talk:
    """A build whose turns are taken one by one, with results of the calls that the model asks for."""

    harness: ActivityHarness
    build: str
    model: RecordingProvider
    goal: str
    prices: PriceTable = field(default_factory=default_prices)

    @property
    def build_id(self) -> uuid.UUID:
        return uuid.UUID(self.build)

    def thinker(self) -> ThinkActivities:
        return ThinkActivities(self.harness.sessions, {"anthropic": self.model}, self.harness.store, self.prices, 8000)

    async def think(self, turn: int, *notes: TurnNote, bytes_of_result: int = OUTPUT) -> ThinkResult:
        request = ThinkInput(build_id=self.build, turn=turn, notes=list(notes))
        result = await ActivityEnvironment().run(self.thinker().think, request)
        for call in result.calls:
            await self.answer_call(call.tool_use_id, "x" * bytes_of_result)
        return result

    async def answer_call(self, tool_use_id: str, *content: str | ImageRef) -> None:
        result = render_result(tool_use_id, content)
        async with transaction(self.harness.sessions) as tx:
            await tx.session.execute(
                update(ToolCall)
                .where(ToolCall.build_id == self.build_id, ToolCall.tool_use_id == tool_use_id)
                .values(state="done", is_error=False, result=result)
            )

    async def compact(self, turn: int) -> CompactResult:
        activities = CompactActivities(
            self.harness.sessions, {"anthropic": self.model}, self.harness.store, self.prices
        )
        return await ActivityEnvironment().run(activities.compact, CompactConversation(build_id=self.build, turn=turn))

    async def rows(self, table: Any) -> list[Any]:
        async with transaction(self.harness.sessions) as tx:
            return list(await tx.session.scalars(select(table).where(table.build_id == self.build_id)))

    async def prefixes(self) -> list[Prompt]:
        return sorted(await self.rows(Prompt), key=lambda row: row.prefix)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.model.sent]

    async def check_ledger(self, worker: WorkerHarness, bodies: Path) -> None:
        """The ledger has what the server has served, compactions included."""
        served = {line["request_id"]: line for line in await worker.served()}
        settled = {entry.request_id: entry for entry in await self.rows(LedgerEntry) if entry.state == "settled"}
        own = {path.stem for path in bodies.glob("*.json") if self.goal in path.read_text()}
        billed = {key for key, line in served.items() if line["status"] == 200 and any(key in name for name in own)}
        assert billed == settled.keys()
        for key, entry in settled.items():
            usage = served[key]["usage"]
            assert (entry.input_tokens, entry.cache_read_tokens, entry.output_tokens, entry.cache_write_5m_tokens) == (
                *(usage[name] for name in ("input", "cache_read", "output", "cache_write_5m")),
            )


@pytest.fixture(scope="module")
async def activity_harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def talk(activity_harness: ActivityHarness, harness: WorkerHarness) -> AsyncIterator[Talk]:
    build = await activity_harness.build()
    goal = f"goal-{uuid.uuid4().hex}"
    model = RecordingProvider(harness.model_url)
    price = default_prices()[MODEL]
    async with transaction(activity_harness.sessions) as tx:
        (await tx.session.get_one(Build, uuid.UUID(build))).model = MODEL
        system = json.dumps([{"type": "text", "text": f"Build {goal}."}], separators=(",", ":"))
        await store_prompt(tx, uuid.UUID(build), system, render_tools(), None)
    script = {"kind": "long", "turns": 500, "output_bytes": OUTPUT, "commit_every": 5}
    await harness.rehearse("scripts", {"match": goal, "script": script})
    prices = {MODEL: price.model_copy(update={"context_tokens": 60_000})}
    yield Talk(activity_harness, build, model, goal, prices)
    await model.close()


def is_continued(before: ModelRequest, after: ModelRequest) -> bool:
    """Whether a request's messages begin with those of another, byte for byte."""
    first, second = (request.body[request.body.index(b'"system":') :] for request in (before, after))
    return second.startswith(first.removesuffix(b"]}"))


async def test_a_summary_opens_a_prefix_and_every_request_begins_with_the_one_before(
    talk: Talk, harness: WorkerHarness, bodies: Path
) -> None:
    due = []
    for turn in range(1, 31):
        result = await talk.think(turn)
        if result.compact:
            due.append(turn)
            assert await talk.compact(turn) == CompactResult(opened=True)
            summary = talk.model.sent.pop()
            [request] = (
                [
                    each
                    for each in talk.model.sent
                    if len(json.loads(each.body)["messages"]) == 2 * (turn - TAIL_TURNS) - 1
                ][-1:]
                if not due[:-1]
                else [None]
            )
            if request is not None:
                system = b'"system":'
                assert summary.body[summary.body.index(system) :] == request.body[request.body.index(system) :]
    assert due
    first = due[0]
    sent = talk.model.sent
    assert all(is_continued(*pair) for pair in itertools.pairwise(sent[:first]))
    opening = json.loads(sent[first].body)["messages"]
    assert [message["role"] for message in opening[:3]] == ["assistant", "assistant", "user"]
    assert [block["type"] for block in opening[0]["content"]] == ["compaction"]
    assert len(opening) == 1 + 2 * TAIL_TURNS + 2
    after = sent[first : due[1] if len(due) > 1 else None]
    assert all(is_continued(*pair) for pair in itertools.pairwise(after))
    assert "compact-2026-09-04" in sent[first].betas
    prefixes = await talk.prefixes()
    assert [(row.prefix, row.covers) for row in prefixes[:2]] == [(0, 0), (1, first - TAIL_TURNS)]
    assert {turn.prefix for turn in await talk.rows(Turn) if turn.number <= first} == {0}
    await talk.check_ledger(harness, bodies)
    assert sorted(entry.turn for entry in await talk.rows(LedgerEntry) if entry.kind == "compaction")[0] == (
        first - TAIL_TURNS
    )
