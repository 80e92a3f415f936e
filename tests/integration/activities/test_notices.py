"""Where Cofounder's notes stand in the conversation: in messages of their own, if the model takes them."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update
from temporalio.testing import ActivityEnvironment

from activities.context import ContextActivities
from activities.think import ThinkActivities
from activities.turn.budget import CallBudget
from activities.turn.floor import NOT_ACCEPTED, open_floor, read_record
from clients.model.anthropic import AnthropicProvider
from db import money
from db.models import Build, FounderMessage, Message, Process, Prompt, StoredFormat, ToolCall, Turn, User
from db.prompts import open_prefix
from db.transaction import transaction
from domain.formats import SYSTEM_NOTICES
from domain.models import default_prices
from domain.notes import TurnNote
from domain.payloads import BuildRef, ThinkInput, ThinkResult
from domain.prompt import LAST_TURN, OPENING, STEER_REPEATING, WIND_DOWN, secrets_set
from domain.summary import compacted
from domain.tool_output import render_result
from local.stack import LocalStack
from services.product_secrets import remove_secret, set_secret
from settings import Settings
from tests.harness.activities import ActivityHarness, open_activity_harness
from tests.harness.model_server import START, STOP, calls, declines, ends, says, speaking

HAIKU, SONNET = "claude-haiku-5-5", "claude-sonnet-5-5"
TODAY = ActivityEnvironment.default_info().started_time.date()


class Talk:
    """A build whose turns are taken one by one, and what was sent of its conversation."""

    def __init__(self, harness: ActivityHarness, build: str) -> None:
        self.harness = harness
        self.build = build
        self.build_id = uuid.UUID(build)
        self.received: list[bytes] = []
        self.turn = 0
        self.worker = self.new_worker()

    def new_worker(self) -> ThinkActivities:
        nowhere = AnthropicProvider("a-key", "http://127.0.0.1:1", 1)
        return ThinkActivities(
            self.harness.sessions, {"anthropic": nowhere}, self.harness.store, default_prices(), 1000
        )

    async def attempt(self, model: AnthropicProvider, *notes: TurnNote) -> ThinkResult:
        self.worker._providers = {"anthropic": model}
        request = ThinkInput(build_id=self.build, turn=self.turn, notes=list(notes))
        return await ActivityEnvironment().run(self.worker.think, request)

    async def take(self, *notes: TurnNote, answer: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """Take the next turn, answer its calls, and return the messages that were sent."""
        self.turn += 1
        answer = answer or [*calls(0, "bash", {"command": "true"}), ends("tool_use")]
        async with speaking(START, *answer, STOP, received=self.received) as model:
            thought = await self.attempt(model, *notes)
        for call in thought.calls:
            done = {"state": "done", "is_error": False, "result": render_result(call.tool_use_id, "it ran")}
            async with transaction(self.harness.sessions) as tx:
                await tx.session.execute(update(ToolCall).where(ToolCall.tool_use_id == call.tool_use_id).values(done))
        return self.sent()

    def sent(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.received[-1])["messages"]
        return found


def roles(messages: list[dict[str, Any]]) -> list[str]:
    return [message["role"] for message in messages]


def texts(message: dict[str, Any]) -> list[str]:
    return [block["text"] for block in message["content"] if block["type"] == "text"]


@pytest.fixture(scope="module")
async def harness(stack: LocalStack) -> AsyncIterator[ActivityHarness]:
    async with open_activity_harness(stack) as opened:
        yield opened


async def start(harness: ActivityHarness, model: str) -> Talk:
    """Begin a build with this model, as a worker does."""
    build = await harness.build()
    async with transaction(harness.sessions) as tx:
        row = await tx.session.get_one(Build, uuid.UUID(build))
        user = await tx.session.get_one(User, row.user_id)
        user.plan, user.model_overrides = "cto_scale", {"coder": model}
    settings, provider = Settings(), AnthropicProvider("a-key", "http://127.0.0.1:1", 1)
    context = ContextActivities(
        harness.sessions,
        settings.model_prices,
        {"anthropic": provider},
        settings,
        fallback_model=SONNET,
        rehearsal_model=False,
        egress_hosts=[],
        budget=CallBudget(settings.model_prices, settings.max_output_tokens, autonomous_agent=True),
    )
    await harness.run(context.load_build_context, BuildRef(build_id=build))
    await provider.close()
    return Talk(harness, build)


async def test_a_note_is_a_system_message_for_sonnet(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    await talk.take()
    messages = await talk.take(TurnNote.WIND_DOWN, TurnNote.STEER_REPEATING)
    assert roles(messages) == ["user", "assistant", "user", "system"]
    assert [block["type"] for block in messages[2]["content"]] == ["tool_result"]
    assert texts(messages[3]) == [WIND_DOWN, STEER_REPEATING]


async def test_the_agent_is_told_the_names_of_secrets_once_and_no_value(harness: ActivityHarness) -> None:
    talk = await start(harness, HAIKU)
    async with transaction(harness.sessions) as tx:
        build = await tx.session.get_one(Build, talk.build_id)

    async def give(name: str) -> None:
        async with transaction(harness.sessions) as tx:
            await set_secret(tx, harness.cipher, build.user_id, build.project_id, name, "a key that is real")

    await give("STRIPE_API_KEY")
    assert texts((await talk.take())[0]) == [OPENING, secrets_set(["STRIPE_API_KEY"])]
    assert texts((await talk.take())[2]) == []
    await give("STRIPE_API_KEY")
    await give("MAIL_TOKEN")
    assert texts((await talk.take())[4]) == [secrets_set(["MAIL_TOKEN", "STRIPE_API_KEY"])]
    async with transaction(harness.sessions) as tx:
        for name in ("STRIPE_API_KEY", "MAIL_TOKEN"):
            await remove_secret(tx, build.user_id, build.project_id, name)
    assert texts((await talk.take())[6]) == [secrets_set([])]
    assert texts((await talk.take())[8]) == []
    assert b"a key that is real" not in b"".join(talk.received)


async def test_a_new_prefix_names_the_secrets_again(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    async with transaction(harness.sessions) as tx:
        build = await tx.session.get_one(Build, talk.build_id)
        await set_secret(tx, harness.cipher, build.user_id, build.project_id, "MAIL_TOKEN", "a key that is real")
        record = await read_record(tx, talk.build_id, ())
    assert "# Secrets\nThe founder has set these secrets for the product, as environment variables: MAIL_TOKEN." in (
        compacted(record)
    )


async def test_a_note_is_in_the_user_message_for_haiku(harness: ActivityHarness) -> None:
    talk = await start(harness, HAIKU)
    await talk.take()
    messages = await talk.take(TurnNote.WIND_DOWN, TurnNote.STEER_REPEATING)
    assert roles(messages) == ["user", "assistant", "user"]
    assert [block["type"] for block in messages[2]["content"]] == ["tool_result", "text", "text"]
    assert texts(messages[2]) == [WIND_DOWN, STEER_REPEATING]


async def test_a_conversation_with_notices_only_grows(harness: ActivityHarness) -> None:
    """Also if workers without a cache take turns with others."""
    talk = await start(harness, SONNET)
    for turn in range(1, 9):
        if turn % 3 == 0:
            talk.worker = talk.new_worker()
        before = talk.received[-1:]
        await talk.take(*([TurnNote.LAST_TURN] if turn % 2 else []))
        assert all(talk.received[-1].startswith(body.removesuffix(b"]}")) for body in before)
    turns = [["user", "system", "assistant"], ["user", "assistant"]] * 4
    assert roles(talk.sent()) == [role for turn in turns for role in turn][:-1]


async def test_what_others_said_is_not_said_with_cofounders_authority(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    await talk.take()
    async with transaction(harness.sessions) as tx:
        said = FounderMessage(build_id=talk.build_id, number=1, text="Use blue.", idempotency_key="blue")
        tx.session.add(said)
    messages = await talk.take(TurnNote.GATE_FINDINGS, TurnNote.LAST_TURN)
    assert roles(messages)[-2:] == ["user", "system"]
    findings, founder = texts(messages[-2])
    assert "did not pass" in findings
    assert "Use blue." in founder
    assert texts(messages[-1]) == [LAST_TURN]


async def test_notes_alone_are_the_user_message(harness: ActivityHarness) -> None:
    """Behind an answer that ended its turn, no results stand in the user message."""
    talk = await start(harness, SONNET)
    await talk.take(answer=[*says(0, "Done."), ends("end_turn")])
    messages = await talk.take(TurnNote.WIND_DOWN)
    assert roles(messages) == ["user", "assistant", "user"]
    assert texts(messages[2]) == [WIND_DOWN]


async def test_notices_of_a_declined_turn_go_behind_the_next_user_message(harness: ActivityHarness) -> None:
    """The API takes a system message only before an answer or at the end."""
    talk = await start(harness, SONNET)
    await talk.take()
    sent = await talk.take(TurnNote.WIND_DOWN, answer=[*says(0, "Here is how"), declines("cyber", "No.")])
    assert roles(sent) == ["user", "assistant", "user", "system"]
    after = await talk.take(TurnNote.LAST_TURN)
    assert after[:3] == sent[:3]
    assert roles(after) == ["user", "assistant", "user", "user", "system"]
    assert texts(after[4]) == [WIND_DOWN, LAST_TURN]
    for worker in (talk.worker, talk.new_worker()):
        talk.worker = worker
        assert (await talk.take())[:5] == after


async def test_another_attempt_sends_the_same_bytes_and_stores_no_notice_twice(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    await talk.take()
    talk.turn = 2
    began = asyncio.Event()
    async with speaking(silent=began, received=talk.received) as model:
        first = asyncio.create_task(talk.attempt(model, TurnNote.WIND_DOWN))
        await began.wait()
        first.cancel()
        await asyncio.wait({first})
    talk.turn, talk.worker = 1, talk.new_worker()
    await talk.take(TurnNote.WIND_DOWN, TurnNote.LAST_TURN)
    assert talk.received[-1] == talk.received[-2]
    async with transaction(harness.sessions) as tx:
        mine = Message.build_id == talk.build_id, Message.role == "system"
        [notice] = await tx.session.scalars(select(Message.content).where(*mine))
    assert json.loads(notice) == [{"type": "text", "text": WIND_DOWN}]


async def test_a_summary_covers_the_notices_of_its_last_turn(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    for _ in range(3):
        before = await talk.take(TurnNote.LAST_TURN)
    opening = '{"role":"assistant","content":[{"type":"compaction","content":"So far."}]}'
    async with transaction(harness.sessions) as tx:
        assert await open_prefix(tx, talk.build_id, 0, 1, covers=2, opening=opening)
    after = await talk.take(TurnNote.LAST_TURN)
    assert after[0] == json.loads(opening)
    assert roles(after) == ["assistant", "assistant", "user", "system", "assistant", "user", "system"]
    assert after[1:4] == before[-3:]


async def test_a_floor_repeats_the_notices_and_its_prefix_has_them_too(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    await talk.take()
    talk.turn = 2
    began = asyncio.Event()
    async with speaking(silent=began, received=talk.received) as model:
        first = asyncio.create_task(talk.attempt(model, TurnNote.WIND_DOWN))
        await began.wait()
        first.cancel()
        await asyncio.wait({first})
    async with transaction(harness.sessions) as tx:
        turn = await tx.session.get_one(Turn, (talk.build_id, 2))
        user = (await tx.session.get_one(Build, talk.build_id)).user_id
        call = money.Call(turn.claim, talk.build_id, user, 2, TODAY, SONNET)
        assert await open_floor(tx, call, "Too long.", 1, ()) == 1
    talk.turn, talk.worker = 1, talk.new_worker()
    [opening] = await talk.take()
    assert WIND_DOWN in texts(opening)[0]
    assert roles(await talk.take(TurnNote.LAST_TURN)) == ["user", "assistant", "user", "system"]


async def test_a_server_that_does_not_take_notices_gets_them_in_user_messages(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    await talk.take()
    async with transaction(harness.sessions) as tx:
        claim = uuid.uuid4()
        tx.session.add(Turn(build_id=talk.build_id, number=2, run_id="run", claim=claim))
        user = (await tx.session.get_one(Build, talk.build_id)).user_id
        await tx.session.flush()
        call = money.Call(claim, talk.build_id, user, 2, TODAY, SONNET)
        assert await open_floor(tx, call, NOT_ACCEPTED, 1, ()) == 1
    await talk.take()
    assert roles(await talk.take(TurnNote.WIND_DOWN)) == ["user", "assistant", "user"]


async def test_the_size_of_a_prompt_counts_its_notices(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    await talk.take()
    async with transaction(harness.sessions) as tx:
        tx.session.add(Turn(build_id=talk.build_id, number=2, run_id="run", claim=uuid.uuid4()))
        before = await money.prompt_size(tx, talk.build_id, 2)
        await tx.session.flush()
        tx.session.add(Message(build_id=talk.build_id, turn=2, role="system", content="x" * 5000))
        await tx.session.flush()
        after = await money.prompt_size(tx, talk.build_id, 2)
        await tx.session.rollback()
    assert after.at_most - before.at_most == 5000


async def test_a_prefix_of_an_older_version_goes_on_as_it_began(harness: ActivityHarness) -> None:
    talk = await start(harness, SONNET)
    async with transaction(harness.sessions) as tx:
        await tx.execute(text("alter table prompts disable trigger user"), {})
        values = {"system_notices": False}
        await tx.session.execute(update(Prompt).where(Prompt.build_id == talk.build_id).values(values))
        await tx.execute(text("alter table prompts enable trigger user"), {})
    await talk.take()
    assert roles(await talk.take(TurnNote.WIND_DOWN)) == ["user", "assistant", "user"]


async def test_no_notice_is_written_while_a_program_runs_that_could_not_read_it(harness: ActivityHarness) -> None:
    older = uuid.uuid4()

    async def written() -> int:
        async with transaction(harness.sessions) as tx:
            return (await tx.session.get_one(StoredFormat, "conversation")).written

    async def restore(version: int) -> None:
        async with transaction(harness.sessions) as tx:
            changed = update(StoredFormat).where(StoredFormat.name == "conversation")
            await tx.session.execute(changed.values(written=version, readable_from=version))
            await tx.session.execute(delete(Process).where(Process.id == older))

    async def has_notices() -> bool:
        build_id = (await start(harness, SONNET)).build_id
        async with transaction(harness.sessions) as tx:
            return (await tx.session.get_one(Prompt, (build_id, 0))).system_notices

    await restore(1)
    try:
        async with transaction(harness.sessions) as tx:
            reads = {"schema": 17, "conversation": SYSTEM_NOTICES - 1}
            now = datetime.now(UTC)
            tx.session.add(Process(id=older, role="worker", version="1", reads=reads, writes=reads, seen_at=now))
        assert not await has_notices()
        assert await written() == 1
        async with transaction(harness.sessions) as tx:
            ago = datetime.now(UTC) - timedelta(minutes=5)
            await tx.session.execute(update(Process).where(Process.id == older).values(seen_at=ago))
        assert await has_notices()
        assert await written() == SYSTEM_NOTICES
    finally:
        await restore(SYSTEM_NOTICES)
