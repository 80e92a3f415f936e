"""One model call to a server that sends exactly what a test specifies: what is stored of it, and what is paid."""

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.think import ThinkActivities
from clients.model.anthropic import AnthropicProvider
from db.feed import append_events
from db.models import Build, FounderMessage, LedgerEntry, Message, Prompt, SandboxRun, ToolCall, Turn, User, UserDay
from db.money import CACHE_SECONDS
from db.sandbox_time import sandbox_seconds
from db.transaction import transaction
from domain.events import ResumedEvent
from domain.models import default_prices
from domain.notes import TurnNote
from domain.output_limits import LONGEST_OUTPUT_TOKENS
from domain.payloads import CheckBudget, ThinkInput, ThinkOutcome, ThinkResult
from domain.tool_output import render_result
from domain.tools import render_tools
from local.stack import LocalStack
from tests.harness.activities import ActivityHarness, open_activity_harness
from tests.harness.model_server import MODEL, START, STOP, SYSTEM, calls, declines, ends, says, speaking, think
from tests.harness.wait import DEADLINE
from tests.harness.worker import changed_prices


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


@pytest.fixture
async def build(harness: ActivityHarness) -> str:
    build_id = await harness.build()
    async with transaction(harness.sessions) as tx:
        (await tx.session.get_one(Build, uuid.UUID(build_id))).model = MODEL
        tx.session.add(Prompt(build_id=uuid.UUID(build_id), system=SYSTEM, tools=render_tools()))
    return build_id


async def ledger(harness: ActivityHarness, build: str) -> LedgerEntry:
    async with transaction(harness.sessions) as tx:
        return (await tx.session.scalars(select(LedgerEntry).where(LedgerEntry.build_id == uuid.UUID(build)))).one()


async def test_an_error_after_the_answer_began_is_paid(harness: ActivityHarness, build: str) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "too odd"}}
    async with speaking(START, error) as model:
        with pytest.raises(ApplicationError) as raised:
            await think(harness, model, build)
    assert raised.value.type == "NeedsPerson"
    entry = await ledger(harness, build)
    assert (entry.state, entry.input_tokens, entry.output_tokens, entry.cost) == ("settled", 1000, 1, 2010)


async def test_a_call_cancelled_before_it_was_answered_stays_as_estimated(harness: ActivityHarness, build: str) -> None:
    asked = asyncio.Event()
    async with speaking(silent=asked) as model:
        thinking = asyncio.ensure_future(think(harness, model, build))
        await asked.wait()
        thinking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await thinking
    entry = await ledger(harness, build)
    assert entry.state == "estimated"
    assert entry.cost > 0


async def test_a_call_that_was_sent_and_never_answered_may_have_been_billed(
    harness: ActivityHarness, build: str
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    model = AnthropicProvider("a-key", address, idle_seconds=DEADLINE)
    with pytest.raises(ApplicationError, match="no answer came"):
        await think(harness, model, build)
    entry = await ledger(harness, build)
    assert (entry.state, entry.cost > 0) == ("estimated", True)
    server.close()
    await server.wait_closed()
    with pytest.raises(ApplicationError, match="could not be reached"):
        await think(harness, model, build)
    await model.close()
    async with transaction(harness.sessions) as tx:
        rows = await tx.session.scalars(select(LedgerEntry.state).where(LedgerEntry.build_id == uuid.UUID(build)))
        assert sorted(rows) == ["estimated", "released"]


async def test_a_stream_without_an_event_may_have_been_billed(harness: ActivityHarness, build: str) -> None:
    async with speaking() as model:
        with pytest.raises(ApplicationError, match="answer"):
            await think(harness, model, build)
    assert (await ledger(harness, build)).state == "estimated"


@pytest.mark.parametrize("odd", ["\x00", "\ud800"], ids=["nul", "lone-surrogate"])
async def test_characters_that_postgresql_refuses_do_not_ask_the_model_again(
    harness: ActivityHarness, build: str, odd: str
) -> None:
    spoken = says(0, f"Look{odd} here. And{odd} there.")
    wanted = calls(1, "bash", {"command": f"echo {odd}", "timeout_seconds": None}) + calls(2, f"to{odd}ol", {})
    async with speaking(START, *spoken, *wanted, ends("tool_use"), STOP) as model:
        result = await think(harness, model, build)
    assert result.outcome is ThinkOutcome.TOOL_USE
    assert result.model_dump_json()
    assert [call.summary for call in result.calls] == ["bash", "unknown tool"]
    assert [event.data["text"] for event in await harness.events(build, "narration")] == [
        "Look\ufffd here.",
        "And\ufffd there.",
    ]
    async with transaction(harness.sessions) as tx:
        rows = await tx.session.scalars(select(ToolCall).where(ToolCall.build_id == uuid.UUID(build)))
        assert len(rows.all()) == 2


async def test_blank_text_is_not_sent_back(harness: ActivityHarness, build: str) -> None:
    async with speaking(START, *says(0, "\n\n"), *calls(1, "glob", {"pattern": "*"}), ends("tool_use"), STOP) as model:
        await think(harness, model, build)
    async with transaction(harness.sessions) as tx:
        stored = (await tx.session.get_one(Message, (uuid.UUID(build), 1, "assistant"))).content
    assert [kept["type"] for kept in json.loads(stored)] == ["tool_use"]


async def test_the_agent_reads_of_every_resume_since_its_last_message(harness: ActivityHarness, build: str) -> None:
    async def resumed(reason: str, *changes: str) -> None:
        async with transaction(harness.sessions) as tx:
            await append_events(tx, uuid.UUID(build), [ResumedEvent(reason=reason, changes=list(changes))])

    async def told(turn: int) -> str:
        async with transaction(harness.sessions) as tx:
            return (await tx.session.get_one(Message, (uuid.UUID(build), turn, "user"))).content

    async with speaking(START, *says(0, "Hm."), ends("end_turn"), STOP) as model:
        await resumed("before the first", "a.txt is missing")
        await think(harness, model, build, 1, TurnNote.RESUMED)
        assert "a.txt is missing" in await told(1)
        await resumed("lost", "b.txt is missing")
        await resumed("woken")
        await think(harness, model, build, 2, TurnNote.RESUMED, TurnNote.RESUMED)
    second = await told(2)
    assert "resumed: woken" in second
    assert second.count("b.txt is missing") == 1
    assert "a.txt" not in second


async def test_the_request_is_what_is_stored_whichever_worker_sent_the_turns_before(
    harness: ActivityHarness, build: str
) -> None:
    received: list[bytes] = []
    async with speaking(START, *says(0, "I go on."), ends("max_tokens"), STOP, received=received) as model:
        one, other = (
            ThinkActivities(harness.sessions, {"anthropic": model}, harness.store, default_prices(), 1000)
            for _ in range(2)
        )
        for turn, worker in enumerate([one, one, other, one, one, other], 1):
            await ActivityEnvironment().run(worker.think, ThinkInput(build_id=build, turn=turn))
        await ActivityEnvironment().run(one.think, ThinkInput(build_id=build, turn=7))
    for number, (before, after) in enumerate(itertools.pairwise(received), 2):
        assert after.startswith(before.removesuffix(b"]}"))
        said = [message["role"] for message in json.loads(after)["messages"]]
        assert said == ["user", *["assistant", "user"] * (number - 1)]
    assert len(received) == 7


async def test_what_was_sent_never_changes_even_without_a_message(harness: ActivityHarness, build: str) -> None:
    """A message between two attempts of a turn that has only tool results belongs to the next turn."""
    build_id, received = uuid.UUID(build), list[bytes]()
    nowhere = AnthropicProvider("a-key", "http://127.0.0.1:1", 1)
    activities = ThinkActivities(harness.sessions, {"anthropic": nowhere}, harness.store, default_prices(), 1000)

    async def attempt(turn: int, model: AnthropicProvider) -> ThinkResult:
        activities._providers = {"anthropic": model}
        return await ActivityEnvironment().run(activities.think, ThinkInput(build_id=build, turn=turn))

    async with speaking(
        START, *calls(0, "bash", {"command": "true"}), ends("tool_use"), STOP, received=received
    ) as model:
        (call,) = (await attempt(1, model)).calls
    async with transaction(harness.sessions) as tx:
        done = {"state": "done", "is_error": False, "result": render_result(call.tool_use_id, "it ran", is_error=False)}
        await tx.session.execute(update(ToolCall).where(ToolCall.build_id == build_id).values(**done))
    began = asyncio.Event()
    async with speaking(silent=began, received=received) as model:
        first = asyncio.create_task(attempt(2, model))
        await began.wait()
        first.cancel()
        await asyncio.wait({first})
    async with transaction(harness.sessions) as tx:
        tx.session.add(FounderMessage(build_id=build_id, number=1, text="Use blue.", idempotency_key="blue"))
    async with speaking(START, *says(0, "Hm."), ends("max_tokens"), STOP, received=received) as model:
        assert (await attempt(2, model)).message_read == 0
        assert (await attempt(3, model)).message_read == 1
    _, before, again, after = (json.loads(body)["messages"] for body in received)
    assert before == again == after[:3]
    assert [block["type"] for block in before[-1]["content"]] == ["tool_result"]
    assert "Use blue." in after[-1]["content"][-1]["text"]


async def test_a_declined_answer_is_not_sent_again_and_the_agent_reads_why(
    harness: ActivityHarness, build: str
) -> None:
    """The tool results that the declined turn was asked with keep their message, on a worker without a cache, too."""
    build_id, received = uuid.UUID(build), list[bytes]()
    nowhere = AnthropicProvider("a-key", "http://127.0.0.1:1", 1)
    one, other = (
        ThinkActivities(harness.sessions, {"anthropic": nowhere}, harness.store, default_prices(), 1000)
        for _ in range(2)
    )

    async def attempt(worker: ThinkActivities, request: ThinkInput, *events: dict[str, Any]) -> ThinkResult:
        async with speaking(START, *events, STOP, received=received) as model:
            worker._providers = {"anthropic": model}
            return await ActivityEnvironment().run(worker.think, request)

    wanted = calls(0, "bash", {"command": "true"})
    (call,) = (await attempt(one, ThinkInput(build_id=build, turn=1), *wanted, ends("tool_use"))).calls
    async with transaction(harness.sessions) as tx:
        done = {"state": "done", "is_error": False, "result": render_result(call.tool_use_id, "it ran", is_error=False)}
        await tx.session.execute(update(ToolCall).where(ToolCall.build_id == build_id).values(**done))
    why = declines("cyber", "It reads like an exploit.")
    declined = await attempt(one, ThinkInput(build_id=build, turn=2), *says(0, "Here is how to break in."), why)
    assert (declined.outcome, declined.declined) == (ThinkOutcome.REFUSED, True)
    assert 'computer security: it could help to attack computers (category cyber). Its explanation: "It' in (
        declined.reason or ""
    )
    assert await attempt(one, ThinkInput(build_id=build, turn=2)) == declined, "a later attempt must find it"
    for turn, worker in ((3, one), (4, other), (5, one)):
        request = ThinkInput(build_id=build, turn=turn)
        await attempt(worker, request, *says(0, "I leave that out."), ends("max_tokens"))
    assert len(received) == 5
    for before, after in itertools.pairwise(received):
        assert after.startswith(before.removesuffix(b"]}"))
    last = json.loads(received[-1])["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "user", "user", *["assistant", "user"] * 2]
    assert [block["type"] for block in last[2]["content"]] == ["tool_result"]
    assert "It reads like an exploit." in last[3]["content"][0]["text"]
    assert b"break in" not in received[-1]
    [notice] = await harness.events(build, "guard")
    assert "It reads like an exploit." in notice.data["text"]
    async with transaction(harness.sessions) as tx:
        turn_row = await tx.session.get_one(Turn, (build_id, 2))
    assert (turn_row.outcome, turn_row.details) == (
        "refusal",
        {"category": "cyber", "explanation": "It reads like an exploit."},
    )


async def test_a_call_that_a_fallback_served_is_settled(harness: ActivityHarness, build: str) -> None:
    """The ledger's row of the call is closed, whichever model of the chain answered."""
    async with transaction(harness.sessions) as tx:
        first = {"build_id": uuid.UUID(build), "system": SYSTEM, "tools": render_tools()}
        tx.session.add(Prompt(**first, prefix=1, fallbacks=["claude-haiku-5-5"]))
    marks = {"type": "fallback", "from": {"model": MODEL}, "to": {"model": "claude-haiku-5-5"}}
    fallback = [
        {"type": "content_block_start", "index": 0, "content_block": marks},
        {"type": "content_block_stop", "index": 0},
    ]
    async with speaking(START, *fallback, *says(1, "I answer."), ends("end_turn"), STOP) as model:
        assert (await think(harness, model, build)).outcome is ThinkOutcome.END_TURN
    entry = await ledger(harness, build)
    assert (entry.state, entry.input_tokens, entry.output_tokens) == ("settled", 1000, 20)
    async with transaction(harness.sessions) as tx:
        stored = (await tx.session.get_one(Message, (uuid.UUID(build), 1, "assistant"))).content
    assert json.loads(stored)[0] == marks


async def test_money_is_reserved_for_every_model_that_may_answer(harness: ActivityHarness) -> None:
    """Opus costs twice as much as Sonnet, so a call that both may be billed for is reserved at three times as much."""

    async def reserved(*fallbacks: str) -> int:
        """What a call stays in the ledger as that is cancelled before its answer begins."""
        build, asked = await harness.build(), asyncio.Event()
        async with transaction(harness.sessions) as tx:
            (await tx.session.get_one(Build, uuid.UUID(build))).model = MODEL
            first = {"build_id": uuid.UUID(build), "system": SYSTEM, "tools": render_tools()}
            tx.session.add(Prompt(**first, fallbacks=list(fallbacks)))
        async with speaking(silent=asked) as model:
            thinking = asyncio.ensure_future(think(harness, model, build))
            await asked.wait()
            thinking.cancel()
            await asyncio.wait({thinking})
        return (await ledger(harness, build)).cost

    assert await reserved("claude-opus-5-5") == 3 * await reserved() > 0


async def test_an_answer_is_read_with_the_tools_of_its_prefix(harness: ActivityHarness, build: str) -> None:
    """A prefix that an older version has opened told the model of other schemas."""
    tools = json.loads(render_tools())
    glob = next(tool for tool in tools if tool["name"] == "glob")
    glob["input_schema"] |= {"properties": {"pattern": {"type": "string"}, "limit": {"type": "integer"}}}
    glob["input_schema"]["required"] = ["pattern", "limit"]
    async with transaction(harness.sessions) as tx:
        tx.session.add(Prompt(build_id=uuid.UUID(build), prefix=1, system=SYSTEM, tools=json.dumps(tools)))
    answered = [*calls(0, "glob", {"pattern": "*", "limit": 5}), *calls(1, "glob", {"pattern": "*"})]
    async with speaking(START, *answered, ends("tool_use"), STOP) as model:
        for _ in range(2):  # the second time it is read from what is stored
            result = await think(harness, model, build)
            assert [call.is_valid for call in result.calls] == [True, False]


async def test_it_heartbeats_while_it_waits_for_a_lock(harness: ActivityHarness, build: str) -> None:
    """Otherwise an attempt that waits for the user's row times out, and the next one waits behind it."""
    beats: list[object] = []
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *details: beats.append(details)
    async with speaking(START, *says(0, "x"), ends("end_turn"), STOP) as model:
        activities = ThinkActivities(harness.sessions, {"anthropic": model}, harness.store, default_prices(), 1000)
        async with transaction(harness.sessions) as tx:
            await tx.session.execute(select(Build).where(Build.id == uuid.UUID(build)).with_for_update())
            request = ThinkInput(build_id=build, turn=1)
            waiting = asyncio.ensure_future(environment.run(activities.think, request))
            async with asyncio.timeout(DEADLINE):
                while not beats and not waiting.done():
                    await asyncio.sleep(0.1)
            assert not waiting.done(), "it waits for the lock on the build"
            assert beats, "it waits without a heartbeat"
        assert (await waiting).outcome is ThinkOutcome.END_TURN


def named_parts(first: str, fallback: str) -> dict[str, Any]:
    """Return the beginning of an answer that has named two parts, of which the second is a fallback's."""
    parts = [
        {"type": "message", "model": first, "input_tokens": 1000, "output_tokens": 10},
        {"type": "fallback_message", "model": fallback, "input_tokens": 1000, "output_tokens": 100},
    ]
    usage = {"input_tokens": 0, "output_tokens": 0, "iterations": parts}
    return START | {"message": START["message"] | {"usage": usage}}


@pytest.mark.parametrize(
    ("follows", "error"),
    [
        ([], "ended before it was complete"),
        ([{"type": "error", "error": {"type": "invalid_request_error", "message": "too odd"}}], "too odd"),
    ],
    ids=["broken", "error"],
)
async def test_a_broken_stream_is_priced_by_its_parts(
    harness: ActivityHarness, build: str, follows: list[dict[str, Any]], error: str
) -> None:
    """Each part that the server had named costs what its own model costs, also if an error ends the answer."""
    async with speaking(named_parts(MODEL, "claude-haiku-5-5"), *says(0, "I begin."), *follows) as model:
        with pytest.raises(ApplicationError, match=error):
            await think(harness, model, build)
    entry = await ledger(harness, build)
    assert (entry.state, entry.input_tokens, entry.output_tokens) == ("settled", 2000, 110)
    assert entry.cost == 1000 * 2 + 10 * 10 + 1000 // 10 + 100 // 2
    assert [part["model"] for part in entry.iterations or ()] == [MODEL, "claude-haiku-5-5"]


async def test_a_broken_stream_with_a_part_of_an_unknown_price_is_an_estimate(
    harness: ActivityHarness, build: str
) -> None:
    async with speaking(named_parts(MODEL, "claude-of-tomorrow"), *says(0, "I begin.")) as model:
        with pytest.raises(ApplicationError, match="ended before it was complete"):
            await think(harness, model, build)
    entry = await ledger(harness, build)
    assert (entry.state, entry.input_tokens) == ("estimated", 2000)
    assert entry.cost > 1000 * 2 + 10 * 10, "what was reserved stays"


async def test_a_long_conversation_winds_down_only_once_its_cache_is_cold(harness: ActivityHarness, build: str) -> None:
    """A day of the default plan pays for many turns that are read from the cache, and for few that are not."""
    build_id = uuid.UUID(build)
    environment = ActivityEnvironment()
    today = environment.info.started_time.astimezone(UTC).date()
    async with transaction(harness.sessions) as tx:
        user_id = (await tx.session.get_one(Build, build_id)).user_id
        tx.session.add(UserDay(user_id=user_id, day=today, from_plan=1_612_903))
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 120_000, "output_tokens": 1}
    begun = START | {"message": START["message"] | {"usage": usage}}
    async with speaking(begun, *calls(0, "glob", {"pattern": "*"}), ends("tool_use"), STOP) as model:
        warm = await think(harness, model, build, max_tokens=64_000)
        assert (warm.wind_down, warm.day) == (False, None)
        async with transaction(harness.sessions) as tx:
            aged = {"opened_at": LedgerEntry.opened_at - timedelta(seconds=CACHE_SECONDS)}
            await tx.session.execute(update(LedgerEntry).where(LedgerEntry.build_id == build_id).values(aged))
        cold = await think(harness, model, build, max_tokens=64_000)
    assert cold.calls == warm.calls, "it is read from what is stored"
    assert (cold.wind_down, cold.day, cold.allowance) == (True, today, 1_612_903)
    assert (await ledger(harness, build)).cost == 120_000 * 5 // 2 + 10 * 2 + 20 * 10


async def test_no_call_asks_for_more_than_its_time_limit_fits(harness: ActivityHarness, build: str) -> None:
    """Whatever an operator's price table and settings say."""
    async with transaction(harness.sessions) as tx:
        user_id = (await tx.session.get_one(Build, uuid.UUID(build))).user_id
        (await tx.session.get_one(User, user_id)).plan = "cto_scale"
    prices, received = changed_prices(max_output_tokens=1_000_000), list[bytes]()
    async with speaking(START, *says(0, "Hm."), ends("end_turn"), STOP, received=received) as model:
        activities = ThinkActivities(harness.sessions, {"anthropic": model}, harness.store, prices, 500_000)
        await ActivityEnvironment().run(activities.think, ThinkInput(build_id=build, turn=1))
    assert json.loads(received[0])["max_tokens"] == LONGEST_OUTPUT_TOKENS


async def test_a_build_that_has_used_up_its_sandbox_time_sleeps(harness: ActivityHarness, build: str) -> None:
    build_id = uuid.UUID(build)
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(
            text("insert into permits (build_id, role, held_since) values (:id, 'workspace', now())"), {"id": build_id}
        )
        await tx.session.execute(
            text("update sandbox_runs set started_at = started_at - interval '4 seconds' where build_id = :id"),
            {"id": build_id},
        )
    async with speaking(START, *says(0, "Hi."), ends("end_turn"), STOP) as model:
        activities = ThinkActivities(
            *(harness.sessions, {"anthropic": model}, harness.store, default_prices(), 1000),
            sandbox_hours_per_day=3 / 3600,
        )
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, started_time=datetime.now(UTC))
        blocked = await environment.run(activities.think, ThinkInput(build_id=build, turn=1))
        assert (blocked.outcome, blocked.service_limit) == (ThinkOutcome.BUDGET, True)
        assert "hours of sandbox time" in (blocked.reason or "")
        said = await environment.run(activities.check_budget, CheckBudget(build_id=build))
        assert (said.exhausted, said.reason) == (True, blocked.reason)
    async with transaction(harness.sessions) as tx:
        await tx.session.execute(text("update permits set role = 'preview' where build_id = :id"), {"id": build_id})
        [run] = await tx.session.scalars(select(SandboxRun).where(SandboxRun.build_id == build_id))
        assert run.ended_at is not None
        spent = await sandbox_seconds(tx, build_id, run.ended_at.astimezone(UTC).date())
        assert 4 <= spent < DEADLINE
        tomorrow = run.ended_at.astimezone(UTC).date() + timedelta(days=1)
        assert await sandbox_seconds(tx, build_id, tomorrow) == 0
