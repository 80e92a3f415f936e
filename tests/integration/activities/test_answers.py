"""Answers that follow no rule of the program: each is paid for once, stored, and can be sent back."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select, update
from temporalio.exceptions import ApplicationError

from clients.model.anthropic import UPDATES_BETA, AnthropicProvider
from db import money
from db.models import Build, LedgerEntry, Message, Prompt, ToolCall, Turn
from db.transaction import transaction
from domain.payloads import ThinkOutcome
from domain.tool_output import render_result
from domain.tools import render_tools
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness
from tests.harness.model_server import MODEL, START, STOP, SYSTEM, block, calls, ends, says, speaking, think

TRUE = {"command": "true", "timeout_seconds": None}


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


async def new_build(harness: ActivityHarness, betas: str = "") -> str:
    build_id = await harness.build()
    async with transaction(harness.sessions) as tx:
        (await tx.session.get_one(Build, uuid.UUID(build_id))).model = MODEL
        tx.session.add(Prompt(build_id=uuid.UUID(build_id), system=SYSTEM, tools=render_tools(), betas=betas))
    return build_id


@pytest.fixture
async def build(harness: ActivityHarness) -> str:
    return await new_build(harness)


async def ledger(harness: ActivityHarness, build: str) -> list[LedgerEntry]:
    async with transaction(harness.sessions) as tx:
        rows = await tx.session.scalars(
            select(LedgerEntry).where(LedgerEntry.build_id == uuid.UUID(build)).order_by(LedgerEntry.opened_at)
        )
        return list(rows)


async def tool_calls(harness: ActivityHarness, build: str) -> list[ToolCall]:
    async with transaction(harness.sessions) as tx:
        rows = await tx.session.scalars(
            select(ToolCall).where(ToolCall.build_id == uuid.UUID(build)).order_by(ToolCall.turn, ToolCall.position)
        )
        return list(rows)


async def run_calls(harness: ActivityHarness, build: str) -> None:
    """Give every call that waits for a result one."""
    for call in await tool_calls(harness, build):
        if call.state != "done":
            result = render_result(call.tool_use_id, "it ran", is_error=False)
            async with transaction(harness.sessions) as tx:
                await tx.session.execute(
                    update(ToolCall)
                    .where(ToolCall.build_id == call.build_id, ToolCall.tool_use_id == call.tool_use_id)
                    .values(state="done", is_error=False, result=result)
                )


async def message(harness: ActivityHarness, build: str, turn: int, role: str) -> list[dict[str, Any]]:
    async with transaction(harness.sessions) as tx:
        stored = (await tx.session.get_one(Message, (uuid.UUID(build), turn, role))).content
    return list(json.loads(stored))


async def narration(harness: ActivityHarness, build: str) -> list[str]:
    return [event.data["text"] for event in await harness.events(build, "narration")]


async def next_request(harness: ActivityHarness, build: str, turn: int = 2) -> dict[str, Any]:
    """The request of a further turn, as the API reads it."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    await run_calls(harness, build)
    received: list[bytes] = []
    async with speaking(START, *says(0, "Hm."), ends("end_turn"), STOP, received=received) as model:
        await think(harness, model, build, turn)
    return dict(json.loads(received[-1], parse_constant=refuse))


def raw_call(text: str, *, tool: str = "read_file", identifier: str = "toolu_1") -> list[dict[str, Any]]:
    started = {"type": "tool_use", "id": identifier, "name": tool, "input": {}}
    return block(0, started, {"type": "input_json_delta", "partial_json": text})


def thinks(index: int, text: str) -> list[dict[str, Any]]:
    """Return the events of a thinking block, signed as the API signs it."""
    started = {"type": "thinking", "thinking": "", "signature": ""}
    start, delta, stop = block(index, started, {"type": "thinking_delta", "thinking": text})
    signature = {"type": "content_block_delta", "index": index, "delta": {"type": "signature_delta", "signature": "s"}}
    return [start, delta, signature, stop]


async def test_progress_updates_are_narrated(harness: ActivityHarness) -> None:
    build = await new_build(harness, UPDATES_BETA)
    note = thinks(0, "The tests pass. Now I add the waitlist page.")
    async with speaking(START, *note, *calls(1, "bash", TRUE), ends("tool_use"), STOP) as model:
        result = await think(harness, model, build)
    assert await narration(harness, build) == ["The tests pass.", "Now I add the waitlist page."]
    assert not result.silent


async def test_reasoning_is_private(harness: ActivityHarness, build: str) -> None:
    async with speaking(
        START, *thinks(0, "The founder is wrong."), *calls(1, "bash", TRUE), ends("tool_use"), STOP
    ) as model:
        result = await think(harness, model, build)
    assert await narration(harness, build) == []
    assert result.silent


async def test_texts_of_two_blocks_are_two_sentences(harness: ActivityHarness, build: str) -> None:
    async with speaking(START, *says(0, "First"), *says(1, "Second"), ends("end_turn"), STOP) as model:
        await think(harness, model, build)
    assert await narration(harness, build) == ["First", "Second"]


CITATION = {"type": "char_location", "cited_text": "a", "document_index": 0, "document_title": None}
CITED = [
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "", "citations": []}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "As it says."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": CITATION}},
    {"type": "content_block_stop", "index": 0},
]
TOMORROW = {"type": "block_of_tomorrow", "payload": {"nested": [1, None, "ü"]}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        (CITED, {"type": "text", "text": "As it says.", "citations": [CITATION]}),
        (
            block(0, {"type": "text", "text": "Hi."}, {"type": "delta_of_tomorrow", "marks": ["x"]}),
            {"type": "text", "text": "Hi.", "marks": ["x"]},
        ),
        ([{"type": "content_block_start", "index": 0, "content_block": TOMORROW}], TOMORROW),
        (
            block(0, SEARCH, {"type": "input_json_delta", "partial_json": '{"query": "how"}'}),
            SEARCH | {"input": {"query": "how"}},
        ),
        (
            [
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "compaction", "content": "So far.", "signature": "s"},
                }
            ],
            {"type": "compaction", "content": "So far.", "signature": "s"},
        ),
    ],
    ids=["citations", "unknown-delta", "unknown-block", "server-tool", "compaction"],
)
async def test_what_this_version_does_not_know_is_sent_back_as_it_came(
    harness: ActivityHarness, build: str, events: list[dict[str, Any]], kept: dict[str, Any]
) -> None:
    async with speaking(START, *events, *calls(1, "bash", TRUE), ends("tool_use"), STOP) as model:
        result = await think(harness, model, build)
    assert result.outcome is ThinkOutcome.TOOL_USE
    assert (await next_request(harness, build))["messages"][1]["content"][0] == kept


async def test_a_call_that_is_not_readable_is_asked_for_once_more(harness: ActivityHarness, build: str) -> None:
    async with speaking(START, *raw_call('{"path": oops'), ends("tool_use"), STOP) as model:
        with pytest.raises(ApplicationError, match="asks the model once more") as raised:
            await think(harness, model, build)
        assert not raised.value.non_retryable
        result = await think(harness, model, build)
    assert [call.is_valid for call in result.calls] == [False]
    [call] = await tool_calls(harness, build)
    assert (call.state, call.is_error) == ("done", True)
    assert "is not JSON" in (call.result or "")
    assert [(row.state, row.cost) for row in await ledger(harness, build)] == [("settled", 2200), ("settled", 2200)]
    async with transaction(harness.sessions) as tx:
        assert (await tx.session.get_one(Turn, (uuid.UUID(build), 1))).unreadable == 1
    assert (await next_request(harness, build))["messages"][1]["content"][0]["input"] == {}


async def test_an_id_that_was_used_before_is_replaced(harness: ActivityHarness, build: str) -> None:
    text = json.dumps(TRUE)
    again = [event | {"index": 1} for event in raw_call(text, tool="bash")]
    async with speaking(START, *raw_call(text, tool="bash"), *again, ends("tool_use"), STOP) as model:
        first = await think(harness, model, build)
        await run_calls(harness, build)
        second = await think(harness, model, build, 2)
    ids = [call.tool_use_id for result in (first, second) for call in result.calls]
    assert len(set(ids)) == 4
    assert all(call.is_valid for result in (first, second) for call in result.calls)
    assert [row.state for row in await ledger(harness, build)] == ["settled", "settled"]
    sent = (await next_request(harness, build, 3))["messages"]
    asked = [part["id"] for said in sent if said["role"] == "assistant" for part in said["content"]]
    answered = [
        part["tool_use_id"]
        for said in sent
        if said["role"] == "user"
        for part in said["content"]
        if part["type"] == "tool_result"
    ]
    assert asked == answered == ids


@pytest.mark.parametrize("name", ["functions.bash", "b" * 200])
async def test_a_tool_with_an_impossible_name(harness: ActivityHarness, build: str, name: str) -> None:
    async with speaking(START, *raw_call(json.dumps(TRUE), tool=name), ends("tool_use"), STOP) as model:
        await think(harness, model, build)
    [call] = await tool_calls(harness, build)
    assert "no tool named" in (call.result or "")
    [sent] = (await next_request(harness, build))["messages"][1]["content"]
    assert sent["name"].replace("_", "").isalnum()
    assert len(sent["name"]) <= 64


async def test_an_id_of_other_letters_gets_safe_ones(harness: ActivityHarness, build: str) -> None:
    events = raw_call(json.dumps(TRUE), tool="bash", identifier="functions.bash:0")
    async with speaking(START, *events, ends("tool_use"), STOP) as model:
        [call] = (await think(harness, model, build)).calls
    assert call.is_valid
    assert call.tool_use_id.replace("_", "").isalnum()
    assert (await next_request(harness, build))["messages"][1]["content"][0]["id"] == call.tool_use_id


@pytest.mark.parametrize("value", ["1e999", "NaN", "7" * 5000, "[" * 3000 + "]" * 3000], ids=lambda value: value[:5])
async def test_input_that_json_cannot_carry(harness: ActivityHarness, build: str, value: str) -> None:
    text = f'{{"path": "a", "start_line": {value}, "line_count": null}}'
    async with speaking(START, *raw_call(text), ends("tool_use"), STOP) as model:
        [call] = (await think(harness, model, build)).calls
    assert not call.is_valid
    assert [row.state for row in await ledger(harness, build)] == ["settled"]
    sent = (await next_request(harness, build))["messages"]
    assert sent[2]["content"][0]["is_error"]


async def test_a_call_without_usage_is_an_estimate(harness: ActivityHarness, build: str) -> None:
    start = json.loads(json.dumps(START))
    start["message"]["usage"] = {"input_tokens": 0, "output_tokens": 0}
    end = ends("end_turn") | {"usage": {"output_tokens": 0}}
    async with speaking(start, *says(0, "All is done."), end, STOP) as model:
        await think(harness, model, build)
    [row] = await ledger(harness, build)
    assert row.state == "estimated"
    assert min(row.cost, row.input_tokens, row.output_tokens) > 0
    [event] = await harness.events(build, "turn_answered")
    assert event.data["estimated"] is True


async def test_a_stream_of_pings_is_given_up(harness: ActivityHarness, build: str) -> None:
    async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(f"event: message_start\ndata: {json.dumps(START)}\n\n".encode())
        try:
            while True:
                writer.write(b'event: ping\ndata: {"type": "ping"}\n\n')
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(ping, "127.0.0.1", 0)
    model = AnthropicProvider("a-key", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", idle_seconds=1)
    with pytest.raises(ApplicationError, match="nothing but pings came for 5 s"):
        await think(harness, model, build, max_tokens=100)
    [row] = await ledger(harness, build)
    assert (row.state, row.cost) == ("settled", 2010)
    assert "pings" in (await harness.events(build, "turn_failed"))[-1].data["error"]
    await model.close()
    server.close()


AS_TEXT = '<function_calls>\n<invoke name="bash">{"command": "true"}</invoke>\n</function_calls>'


async def test_a_call_written_as_text_does_not_end_the_turn(harness: ActivityHarness, build: str) -> None:
    async with speaking(START, *says(0, f"I look.\n{AS_TEXT}"), ends("end_turn"), STOP) as model:
        assert (await think(harness, model, build)).outcome is ThinkOutcome.CONTINUE
    said = (await next_request(harness, build))["messages"][-1]["content"]
    assert len(said) == 1
    assert "no tool ran" in said[0]["text"]


async def test_an_answer_that_cannot_be_stored_is_paid_once_and_told(harness: ActivityHarness, build: str) -> None:
    async with speaking(START, *says(0, "Hm."), ends("a\x00reason"), STOP) as model:
        result = await think(harness, model, build)
        again = await think(harness, model, build)
    assert result.outcome is again.outcome is ThinkOutcome.CONTINUE
    assert [(row.state, row.cost) for row in await ledger(harness, build)] == [("settled", 2200)]
    assert "could not be stored" in (await harness.events(build, "guard"))[-1].data["text"]
    assert "could not be stored" in (await next_request(harness, build))["messages"][-1]["content"][0]["text"]


def part_of(kind: str, model: str, input_tokens: int, output: int) -> dict[str, Any]:
    counts = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"type": kind, "model": model, "input_tokens": input_tokens, "output_tokens": output, **counts}


def fallback_to(model: str, category: str) -> dict[str, Any]:
    trigger = {"type": "refusal", "category": category, "explanation": None}
    started = {"type": "fallback", "from": {"model": MODEL}, "to": {"model": model}, "trigger": trigger}
    return {"type": "content_block_start", "index": 1, "content_block": started}


@pytest.mark.parametrize(
    ("output", "category", "cost"),
    [
        (7, "cyber", 2 * 1000 + 10 * 7 + 4 * 1200 + 20 * 30),
        (0, "cyber", 4 * 1200 + 20 * 30),
        (0, "bio", 2 * 1000 + 4 * 1200 + 20 * 30),
    ],
    ids=["declined-after-output", "declined-for-free", "declined-and-billed"],
)
async def test_each_model_of_a_call_is_billed_at_its_own_price(
    harness: ActivityHarness, build: str, output: int, category: str, cost: int
) -> None:
    opus = "claude-opus-5-5"
    parts = [part_of("message", MODEL, 1000, output), part_of("fallback_message", opus, 1200, 30)]
    end = ends("tool_use") | {"usage": {"output_tokens": 30, "input_tokens": 1200, "iterations": parts}}
    left = raw_call(json.dumps(TRUE), tool="bash", identifier="toolu_left")
    boundary = fallback_to(opus, category)
    async with speaking(START, *left, boundary, *calls(2, "bash", TRUE), end, STOP) as model:
        result = await think(harness, model, build)
    assert [call.tool_use_id == "toolu_left" for call in result.calls] == [False]
    [row] = await ledger(harness, build)
    assert (row.state, row.cost, row.input_tokens, row.output_tokens) == ("settled", cost, 2200, 30 + output)
    assert [part["model"] for part in row.iterations or []] == [MODEL, opus]
    async with transaction(harness.sessions) as tx:
        assert (await money.prompt_size(tx, uuid.UUID(build), 2)).counted == 1200 + 30, "the window of the last model"
    sent = (await next_request(harness, build))["messages"][1]["content"]
    assert sent[0] == boundary["content_block"]
    assert [part["type"] for part in sent] == ["fallback", "tool_use"]


async def test_a_model_without_a_price_leaves_what_was_reserved(harness: ActivityHarness, build: str) -> None:
    parts = [part_of("message", MODEL, 1000, 1), part_of("fallback_message", "claude-of-tomorrow", 1200, 30)]
    end = ends("end_turn") | {"usage": {"output_tokens": 30, "iterations": parts}}
    async with speaking(START, *says(0, "Done."), end, STOP) as model:
        assert (await think(harness, model, build)).outcome is ThinkOutcome.END_TURN
    [row] = await ledger(harness, build)
    assert row.state == "estimated"
    assert row.cost > 0
